"""A line of output, whoever wrote what stands in it."""

from __future__ import annotations

import sys

import click

from ..event.printable import printable


def print_line(text: str, *, err: bool = False) -> None:
    """Print what is to be one line; what would be obeyed, or is in no encoding, as escapes."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(shown, err=err)
