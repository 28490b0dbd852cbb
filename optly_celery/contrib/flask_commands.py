"""``flask optimizely …``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import click


class Commands(click.Group):
    """``flask optimizely …``: the commands of ``optly-celery``, about the Flask app's Celery app.

    Imported when asked for: that takes 0.1 s, which a web server's start should not pay.
    """

    def __init__(self, celery_app: Callable[[], Any]) -> None:
        super().__init__("optimizely", help="Look after the events on their way to Optimizely.")
        self._celery_app = celery_app

    @cached_property
    def _group(self) -> click.Group:
        from ..cli import optimizely  # noqa: PLC0415 - see above
        from ..cli.exits import CommandGroup  # noqa: PLC0415

        return CommandGroup(self.name, commands=optimizely.commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._group.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._group.get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        from ..cli.chosen_app import ChosenApp  # noqa: PLC0415 - see above

        ctx.obj = ChosenApp(self._celery_app)
        return self._group.invoke(ctx)
