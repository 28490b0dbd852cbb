"""The Celery app that a command is about."""

from __future__ import annotations

from collections.abc import Callable
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
    """What commands find in click's context: the app, looked for when first asked."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find

    @cached_property
    def app(self) -> Any:
        return self._find()


def named(name: str | None) -> Any:
    """What ``optly-celery -A`` names, as for ``celery -A``.

    Raises:
        Failure: there is no such app.
    """
    if name is None:
        return standalone_app()
    try:
        found = find_app(name)
    except Exception as exc:  # noqa: BLE001 - importing a project may raise anything
        raise Failure(
            f"the Celery app {name!r} cannot be imported ({type(exc).__name__}: {exc}). {_HINT}",
            USAGE,
        ) from None
    if not isinstance(found, celery.Celery):
        raise Failure(f"{name!r} is no Celery app. {_HINT}", USAGE)
    return found


_HINT = (
    "Name it as for celery itself: -A yourproject or -A yourproject.module:app, "
    "seen from the working directory."
)


def chosen_runtime() -> Runtime:
    """What there is for the app of ``celery -A`` or ``optly-celery -A``, settings checked.

    Raises:
        Failure: the app cannot be found.
        SettingsError: a setting is wrong, or the configuration cannot be read.
    """
    app = click.get_current_context().obj.app
    if app.main == "default":
        app = current_app()  # `celery` without -A makes up an app that nobody configured
    return runtime_of(app).checked()
