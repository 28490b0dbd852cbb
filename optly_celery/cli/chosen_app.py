"""The Celery app that a command is about."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import celery
import click
from celery.app.utils import find_app

from ..celery_app import current_app, standalone_app
from ..runtime.process import runtime_of
from ..runtime.runtime import Runtime
from .exits import USAGE, Failure


class ChosenApp:
    """What ``optly-celery -A`` names; looked for when first asked, as ``celery -A`` does."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    @cached_property
    def app(self) -> Any:
        if self._name is None:
            return standalone_app()
        try:
            found = find_app(self._name)
        except Exception as exc:  # noqa: BLE001 - importing a project may raise anything
            raise Failure(
                f"the Celery app {self._name!r} cannot be imported "
                f"({type(exc).__name__}: {exc}). {_HINT}",
                USAGE,
            ) from None
        if not isinstance(found, celery.Celery):
            raise Failure(f"{self._name!r} is no Celery app. {_HINT}", USAGE)
        return found


_HINT = (
    "Name it as for celery itself: -A yourproject or -A yourproject.module:app, "
    "seen from the working directory."
)


def runtime_from(ctx: click.Context) -> Runtime:
    """The collaborators for the app of ``celery -A`` or ``optly-celery -A``, settings checked.

    Raises:
        Failure: the app cannot be found.
        SettingsError: a setting is wrong, or the configuration cannot be read.
    """
    app = ctx.obj.app
    if app.main == "default":
        app = current_app()  # `celery` without -A makes up an app that nobody configured
    return runtime_of(app).checked()
