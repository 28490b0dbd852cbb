"""The project's Optimizely client. Named so that the package's ``client`` is not this module."""

from __future__ import annotations

import functools
from typing import Any

from django.core.signals import setting_changed
from django.utils.functional import SimpleLazyObject, empty

from ...errors import SettingsError
from ...event_dispatcher import EventDispatcher
from .options import current_options

ONE_OF = ("sdk_key", "datafile", "config_manager")
"""The SDK's client needs one of these, or it has nothing to decide by."""

_made: dict[str, Any] = {}


def make_client() -> Any:
    """The client for the options of now; not built, so nothing is opened.

    Raises:
        SettingsError: ``settings.OPTIMIZELY`` is wrong.
    """
    # Not at the top: django.setup() need not wait for the SDK.
    from ...sdk.client import create_client  # noqa: PLC0415
    from .on_commit import OnCommitProcessor  # noqa: PLC0415

    options = current_options()
    arguments = dict(options.sdk_arguments)
    if not any(arguments.get(name) for name in ONE_OF):
        raise SettingsError(f"OPTIMIZELY names no {' and no '.join(ONE_OF)}: give one of them")
    if options.on_commit is not None:
        if "event_processor" in arguments:
            raise SettingsError(
                "OPTIMIZELY['on_commit'] needs the event processor of optly_celery: "
                "leave out 'event_processor'"
            )
        arguments["event_processor"] = functools.partial(
            OnCommitProcessor,
            options.on_commit,
            arguments.get("event_dispatcher", EventDispatcher),
        )
    try:
        return create_client(**arguments)
    except TypeError as exc:
        raise SettingsError(f"OPTIMIZELY is wrong: {exc}") from None


def _make_once() -> Any:
    # Two threads at once may make two; the one that is kept is the one that both return.
    return _made.get("client") or _made.setdefault("client", make_client())


client: Any = SimpleLazyObject(_make_once)
"""Behaves as ``optimizely.Optimizely``; made from ``settings.OPTIMIZELY`` on first use.

Raises:
    SettingsError: on first use, if ``settings.OPTIMIZELY`` is wrong.
"""


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("OPTIMIZELY", "DATABASES"):
        current_options.cache_clear()
        _made.clear()
        client._wrapped = empty  # noqa: SLF001 - Django's own way to have it made again


setting_changed.connect(_forget)
