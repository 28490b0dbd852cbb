"""The commands: ``celery -A yourproject optimizely …`` and ``optly-celery …`` are the same.

A command parses, calls one library function and prints. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

from typing import Any

import click
from celery.bin.base import handle_preload_options

from ..version import __version__
from .chosen_app import ChosenApp, named
from .dead_letters import dead_letters
from .demo import demo
from .exits import CommandGroup
from .outbox import outbox
from .status import status

__all__ = ["main", "optimizely"]


# Celery gives the options that a project adds to all commands to this one as well.
@click.group(cls=CommandGroup, commands=[status, dead_letters, outbox, demo])
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator, unused-ignore]
def optimizely(ctx: click.Context, **_: Any) -> None:
    """Look after the events on their way to Optimizely."""


@click.group(cls=CommandGroup, name="optly-celery", commands=optimizely.commands)
@click.option(
    "-A", "--app", metavar="APP",
    help="The Celery app, named as for celery itself; by default the standalone one, which reads "
    "OPTLY_* variables and celeryconfig.py in the working directory.",
)  # fmt: skip
@click.version_option(__version__, prog_name="optly-celery")
@click.pass_context
def main(ctx: click.Context, app: str | None) -> None:
    """Look after the events on their way to Optimizely."""
    ctx.obj = ChosenApp(lambda: named(app))
