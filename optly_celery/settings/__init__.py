"""The ``optly_…`` settings; `Settings` is public here."""

from .settings import Settings

__all__ = ["Settings"]
