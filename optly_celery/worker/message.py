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
from ..names import ENQUEUED_AT_HEADER, SWEPT_HEADER

_LONGEST_ID = 255
_DAY_S = 86_400


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


def name_of(message: Any) -> str:
    """The task's id, or what stands for it: the same whenever this message comes."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    found = headers.get("id")
    if isinstance(found, str) and found.isprintable() and 0 < len(found) <= _LONGEST_ID:
        return found
    return _digest(repr((message.body, found)).encode(errors="backslashreplace"))


def kept_message(message: Any, reason: str) -> Kept:
    """A message as it is, to be kept; what is shown of it is its size."""
    body = message.body
    whole = {
        "body": _text(body)[0] if isinstance(body, bytes) else body,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "headers": _first(message.headers),
        "properties": _first(message.properties),
    }
    headers = message.headers if isinstance(message.headers, dict) else {}
    return Kept(
        event=Event.raw(None, {"message": _plain(whole)}, None, None),
        task_id=name_of(message),
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
        task_id=_digest(item),
        reason=reason,
        attempts=0,
        first_at=time.time(),
    )


def kept_large(digest: str, size: int, where: str) -> Kept:
    """What is too large for a worker, to be kept in Redis, in the list ``where``."""
    known = {"message": None, "bytes": size, "list": where}
    return Kept(
        event=Event.raw(None, known, None, None),
        task_id=digest,
        reason="too_large",
        attempts=0,
        first_at=time.time(),
    )


def _digest(item: bytes) -> str:
    return hashlib.sha256(item).hexdigest()[:32]


def _first(part: Any) -> Any:
    """Headers or properties without what differs each time that the broker hands them out."""
    if not isinstance(part, dict):
        return part
    return {
        name: _first(value) if name == "delivery_info" else value
        for name, value in part.items()
        if name not in ("delivery_tag", "redelivered", SWEPT_HEADER)
    }


def _plain(whole: dict[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(whole, default=repr))
    except (TypeError, ValueError, RecursionError):
        # Its body is what matters most; a letter that says no more is better than none.
        return {"body": str(whole["body"])}


def _retries(headers: dict[str, Any]) -> int:
    found = headers.get("retries")
    return found if type(found) is int and found >= 0 else 0


def first_at(headers: Any) -> float:
    """When an event was first enqueued, in seconds since the epoch.

    Another producer's message may not say: then it is as old as this attempt.
    """
    found, now = headers.get(ENQUEUED_AT_HEADER), time.time()
    # Neither true, nor NaN, nor what no float can be.
    is_time = type(found) in (int, float) and 0 < found <= now + _DAY_S
    return float(found) if is_time else now


def _text(body: bytes) -> tuple[str, str]:
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
