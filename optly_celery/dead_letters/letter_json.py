"""How a dead letter is written down: as JSON, the event apart from what is known about it.

Looking through letters so loads no event. Pure.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone

from ..event.event import Event
from .letter import DeadLetter, event_dict

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


def letter_id(task_id: str, event: Event) -> str:
    """The letter's id: the same for the same event in the same task."""
    identity = f"{task_id}\n{event.url}\n{event.body}".encode()
    return hashlib.sha256(identity).hexdigest()[:16]


def facts_text(
    event: Event,
    *,
    task_id: str,
    reason: str,
    error: str,
    status: int | None,
    attempts: int,
    first_at: float,
    last_at: float,
) -> str:
    """What is known about an event that is kept; times are seconds since the epoch."""
    return json.dumps(
        {
            "task_id": task_id,
            "reason": reason,
            "error": error,
            "status": status,
            "attempts": attempts,
            "first_at": first_at,
            "last_at": last_at,
            "summary": event.summary,
        }
    )


def letter_of(letter_id: str, text: str | bytes) -> DeadLetter:
    """The letter with these facts, or one with the reason ``unreadable`` if they are damaged.

    One damaged letter must not hide the others, and has to be purged like any other.
    """
    try:
        facts = json.loads(text)
        return DeadLetter(
            id=letter_id,
            task_id=str(facts["task_id"]),
            reason=str(facts["reason"]),
            error=str(facts["error"]),
            status=facts["status"],
            attempts=int(facts["attempts"]),
            first_at=_instant(facts["first_at"]),
            last_at=_instant(facts["last_at"]),
            summary=str(facts["summary"]),
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
