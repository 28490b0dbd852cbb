"""The collaborators of this process, built on first use from a Celery app's configuration.

A forked child builds its own: sockets, sessions and counters are not shared with its parent.
"""

from __future__ import annotations

import os
import runpy
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import celery
from celery._state import _get_active_apps
from celery.loaders.app import AppLoader

from .deliver.dead_letters import DeadLetters
from .deliver.retry import RetryPolicy
from .deliver.transport import Transport
from .enqueue.publisher import Publisher
from .errors import SettingsError
from .settings import Settings
from .tally import Tally
from .version import __version__


class Runtime:
    """What one process needs for one Celery app. Attributes appear when first asked for.

    Raises:
        SettingsError: by whichever attribute is asked for first, if the configuration is wrong.
    """

    def __init__(self, app: celery.Celery) -> None:
        self.app = app

    @cached_property
    def settings(self) -> Settings:
        return Settings.from_celery(self.app.conf)

    @cached_property
    def publisher(self) -> Publisher:
        settings = self.settings
        return Publisher(self.app, queue=settings.queue, timeout_s=settings.publish_timeout)

    @cached_property
    def transport(self) -> Transport:
        settings = self.settings
        return Transport(
            allowed_hosts=settings.allowed_hosts,
            timeout_s=settings.request_timeout,
            url_override=settings.url_override,
            strict=settings.strict,
            user_agent=f"optly_celery/{__version__}",
        )

    @cached_property
    def policy(self) -> RetryPolicy:
        settings = self.settings
        return RetryPolicy(
            max_attempts=settings.max_retries + 1,
            base_backoff_s=settings.retry_backoff,
            max_backoff_s=settings.retry_backoff_max,
            max_age_s=settings.max_age,
        )

    @cached_property
    def dead_letters(self) -> DeadLetters:
        settings = self.settings
        if settings.dead_letter_url is None:
            raise SettingsError(
                "the broker is not Redis, so there is no place for dead letters: "
                "set optly_dead_letter_url to a redis:// URL"
            )
        prefix = (self.app.conf.broker_transport_options or {}).get("global_keyprefix", "")
        return DeadLetters(
            settings.dead_letter_url, max_age_s=settings.dead_letter_max_age, key_prefix=prefix
        )


_runtimes: WeakKeyDictionary[celery.Celery, Runtime] = WeakKeyDictionary()
_inherited: list[object] = []
_tally = Tally()
_fork_hook_set = False
_fallback: list[celery.Celery] = []


def runtime_of(app: Any) -> Runtime:
    """This process's collaborators for an app."""
    app = app._get_current_object() if hasattr(app, "_get_current_object") else app
    found = _runtimes.get(app)
    if found is None:
        _reset_after_fork()
        # Two threads at once may build two; the one that is kept is the one that both return.
        found = _runtimes.setdefault(app, Runtime(app))
    return found


def tally() -> Tally:
    """This process's counters."""
    return _tally


def stats() -> dict[str, int | dict[str, int]]:
    """What became of the events of this process since it started, or was forked.

    ``accepted`` = ``published`` + the sum of ``dropped``, which is by reason, at any time at which
    no dispatch is under way. ``refused``, by reason, is what was no event.
    """
    return _tally.as_dict()


def current_app() -> celery.Celery:
    """The Celery app whose configuration counts in this process.

    Celery's current app where there is one. Celery remembers it for the thread that made it, and
    in other threads answers with an app of its own that nobody configured; there, the only app
    that the process has made counts. A process without any gets the standalone app, which reads
    ``celeryconfig.py`` and ``OPTLY_…``.
    """
    current = celery.current_app._get_current_object()
    if not _is_placeholder(current):
        return current
    made = [app for app in _get_active_apps() if not _is_placeholder(app) and app not in _fallback]
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


def standalone_app() -> celery.Celery:
    """A Celery app for processes that have none of their own; reads nothing until it is used."""
    return celery.Celery(
        "optly_celery",
        loader=_StandaloneLoader,
        include=["optly_celery.tasks"],
        set_as_current=False,
    )


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


def _is_placeholder(app: celery.Celery) -> bool:
    """Whether Celery made this app up, since it was asked for a current one and had none."""
    return app.main == "default" and not app.set_as_current


def _reset_after_fork() -> None:
    global _fork_hook_set
    if not _fork_hook_set:
        _fork_hook_set = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    global _runtimes, _tally
    # Kept, not closed: closing would say goodbye on connections that are still the parent's.
    _inherited.append(_runtimes)
    _runtimes, _tally = WeakKeyDictionary(), Tally()
