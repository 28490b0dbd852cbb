"""How a dead letter is written down: as JSON, the event apart from what is known about it.

Looking through letters so loads no event. Pure.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone

from ..event.event import Event
from .letter import DeadLetter, Kept, event_dict

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


def letter_id(kept: Kept) -> str:
    """The letter's id: the same for the same event in the same task."""
    identity = f"{kept.task_id}\n{kept.event.url}\n{kept.event.body}".encode()
    return hashlib.sha256(identity).hexdigest()[:16]


def letter_text(kept: Kept, last_at: float) -> str:
    """What is known about an event that is kept; times are seconds since the epoch."""
    known = {**vars(kept), "last_at": last_at, "summary": kept.event.summary}
    del known["event"]
    return json.dumps(known | {"error": kept.reason if kept.error is None else kept.error})


def letter_of(letter_id: str, text: str | bytes) -> DeadLetter:
    """The letter that `letter_text` wrote, or one with the reason ``unreadable`` if damaged.

    One damaged letter must not hide the others, and has to be purged like any other.
    """
    try:
        known = json.loads(text)
        return DeadLetter(
            id=letter_id,
            task_id=str(known["task_id"]),
            reason=str(known["reason"]),
            error=str(known["error"]),
            status=known["status"],
            attempts=int(known["attempts"]),
            first_at=_instant(known["first_at"]),
            last_at=_instant(known["last_at"]),
            summary=str(known["summary"]),
        )
    except (ValueError, LookupError, TypeError):
        return DeadLetter(letter_id, "", "unreadable", "unreadable", None, 0, _EPOCH, _EPOCH, "?")


def event_text(event: Event) -> str:
    """The event, unchanged."""
    return json.dumps(event_dict(event))


def event_from(text: str | bytes) -> Event:
    """The event that `event_text` wrote; it need not be one, see `Event.raw`, nor if damaged."""
    try:
        parts = json.loads(text)
        return Event.raw(parts["url"], parts["params"], parts["verb"], parts["headers"])
    except (ValueError, LookupError, TypeError):
        return Event.raw(None, None, None, None)


def _instant(seconds: float) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return _EPOCH  # a foreign producer may call anything its first time
