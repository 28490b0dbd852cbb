"""What a deliver task's message says, whatever it is that somebody has put into the queue."""

from __future__ import annotations

import functools
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from celery.utils.time import maybe_iso8601, maybe_make_aware

from ..errors import NotAnEventError
from ..event.event import Event


def url_of(payload: Any) -> Any:
    """An event's URL by the task's arguments, whatever they are."""
    try:
        args, kwargs, _ = payload
        return args[0] if args else kwargs.get("url")
    except (TypeError, ValueError, LookupError, AttributeError):
        return None


def url_in(message: Any) -> Any:
    try:
        return url_of(message.payload)
    except Exception:  # noqa: BLE001 - a message that cannot be read is for Celery to refuse
        return None


def is_due(eta: Any) -> bool:
    """Whether a message's time has come; one that cannot be read is for Celery to refuse."""
    try:
        when = maybe_iso8601(eta)
        return when is None or bool(maybe_make_aware(when) <= datetime.now(timezone.utc))
    except (AttributeError, TypeError, ValueError):
        return True


def event_of(url: object, verb: object, params: object, headers: object = None) -> Event:
    return Event.of(url, params, verb, headers)


def summary(payload: Any) -> str:
    """What may be shown of a message's arguments, whatever they are."""
    try:
        args, kwargs, _ = payload
        return event_of(*args, **kwargs).summary
    except (NotAnEventError, TypeError, ValueError):
        return "no event"


@functools.lru_cache(maxsize=256)
def host_in(url: str) -> str | None:
    """The host of a URL, with its port; None where there is none."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return None if not name else f"{name}:{port}" if port else name
