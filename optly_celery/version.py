"""The version, in a leaf: importing it costs nothing."""

__version__ = "0.1.0"
