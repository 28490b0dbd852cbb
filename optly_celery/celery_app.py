"""Which Celery app a process dispatches through, and the one for processes that have none."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import celery
from celery._state import _apps, get_current_app
from celery.loaders.app import AppLoader

from .errors import SettingsError

_fallback: list[celery.Celery] = []
_chosen: dict[int, celery.Celery] = {}


def current_app() -> celery.Celery:
    """The Celery app whose configuration counts in this process.

    Celery's current app where there is one. Celery remembers it for the thread that made it, and
    in other threads answers with an app of its own that nobody configured; there, the only app
    that the process has made counts. A process without any gets the standalone app, which reads
    ``celeryconfig.py`` and ``OPTLY_…``.

    Raises:
        SettingsError: there are several apps, and none is the default.
    """
    current: celery.Celery = get_current_app()
    # Celery made this one up, since it was asked for a current app and had none.
    if current.main != "default" or current.set_as_current:
        return current
    # Looking at all apps costs 20 µs; the answer is the same while there are no more of them.
    if len(_apps) not in _chosen:
        _chosen.clear()
        _chosen[len(_apps)] = _choose()
    return _chosen[len(_apps)]


def standalone_app() -> celery.Celery:
    """A Celery app for processes that have none of their own; reads nothing until it is used."""
    return celery.Celery(
        "optly_celery",
        loader=_StandaloneLoader,
        include=["optly_celery.tasks"],
        set_as_current=False,
    )


def _choose() -> celery.Celery:
    # An app made with set_as_current=False has said that it is not meant.
    made = [app for app in list(_apps) if app.set_as_current]
    if len(made) == 1:
        return made[0]
    if len(made) > 1:
        names = ", ".join(sorted(str(app.main) for app in made))
        raise SettingsError(
            f"this process has several Celery apps ({names}) and none is the default: "
            "call set_default() on the one that optly_celery should use"
        )
    if not _fallback:
        _fallback.append(standalone_app())
    return _fallback[0]


class _StandaloneLoader(AppLoader):  # type: ignore[misc]
    """The package's ``celeryconfig``, and over it the one in the working directory."""

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:
        values = vars(self.import_from_cwd("optly_celery.celeryconfig"))
        chosen = os.environ.get(env)
        local = Path("celeryconfig.py")
        if chosen:
            values = values | vars(self.import_from_cwd(chosen))
        elif local.is_file():
            values = values | runpy.run_path(str(local))
        return {k: v for k, v in values.items() if k.islower() and not k.startswith("_")}
