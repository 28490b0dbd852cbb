"""What a deliver task's message says, whatever it is that somebody has put into the queue."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import time
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from celery.utils.time import maybe_iso8601, maybe_make_aware

from ..dead_letters.letter import Kept
from ..errors import NotAnEventError
from ..event.event import Event
from ..names import ENQUEUED_AT_HEADER


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


def host_in(url: str) -> str | None:
    """The host of a URL, with its port; None where there is none."""
    # The SDK's URLs are few and short, and somebody's megabytes need not be remembered.
    return _host_in(url) if len(url) < 1000 else _host_in.__wrapped__(url)


@functools.lru_cache(maxsize=256)
def _host_in(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    return None if not name else f"{name}:{port}" if port else name


def kept_message(message: Any, reason: str) -> Kept:
    """A message as it is, to be kept; what is shown of it is its size."""
    body = message.body
    whole = {
        "body": _text(body)[0] if isinstance(body, bytes) else body,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "headers": message.headers,
        "properties": message.properties,
    }
    headers = message.headers if isinstance(message.headers, dict) else {}
    return Kept(
        event=Event.raw(None, {"message": json.loads(json.dumps(whole, default=repr))}, None, None),
        task_id=str(headers.get("id") or message.delivery_tag),
        reason=reason,
        attempts=_retries(headers),
        first_at=first_at(headers),
    )


def kept_request(request: Any, reason: str) -> Kept:
    """The event that a request carries, or its message where that is none, to be kept."""
    message = request.message
    try:
        args, kwargs, _ = message.payload
        event = event_of(*args, **kwargs)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is kept as it is
        return kept_message(message, reason)
    return Kept(
        event=event,
        task_id=request.id,
        reason=reason,
        attempts=_retries(message.headers) + 1,
        first_at=first_at(message.headers),
    )


def kept_item(item: bytes, reason: str) -> Kept:
    """What is no message, to be kept with all its bytes; what is shown of it is its size."""
    text, encoding = _text(item)
    return Kept(
        event=Event.raw(None, {"message": text, "encoding": encoding}, None, None),
        task_id=hashlib.sha256(item).hexdigest()[:32],
        reason=reason,
        attempts=0,
        first_at=time.time(),
    )


def _retries(headers: dict[str, Any]) -> int:
    found = headers.get("retries")
    return found if isinstance(found, int) else 0


def first_at(headers: Any) -> float:
    """When an event was first enqueued, in seconds since the epoch.

    Another producer's message may not say: then it is as old as this attempt.
    """
    found = headers.get(ENQUEUED_AT_HEADER)
    return found if isinstance(found, (int, float)) else time.time()


def _text(body: bytes) -> tuple[str, str]:
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
