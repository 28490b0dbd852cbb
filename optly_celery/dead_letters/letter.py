"""One dead letter, how it is written down, which letters are meant, and what becomes of one. Pure.

As JSON, the event apart from what is known about it: looking through letters so loads no event.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from ..event.event import Event

_EPOCH = datetime.fromtimestamp(0, timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An event that is to be kept, and why. ``repr`` shows the event's summary alone.

    ``error`` is the last attempt's own reason, where that is another than the ``reason`` to keep
    it; ``attempts`` counts from 1, with 0 for what was never tried; ``first_at`` is when it was
    first enqueued, in seconds since the epoch; ``answer`` is what the endpoint said to it, which
    may quote it.
    """

    event: Event
    task_id: str
    reason: str
    attempts: int
    first_at: float
    error: str | None = None
    status: int | None = None
    answer: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class DeadLetter:
    """Why an event was kept. Holds no personal data.

    ``error`` is the last attempt's own reason (``http_503``) where ``reason`` says why there is
    no other (``attempts_exhausted``); ``task_id`` is the task's id in Flower; ``summary`` is the
    event's.
    """

    id: str
    task_id: str
    reason: str
    error: str
    status: int | None
    attempts: int
    first_at: datetime
    last_at: datetime
    summary: str

    def as_dict(self) -> dict[str, Any]:
        """The letter for a JSON document; times are ISO 8601 in UTC."""
        return {
            **vars(self),
            "first_at": self.first_at.isoformat(timespec="seconds"),
            "last_at": self.last_at.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class WholeLetter(DeadLetter):
    """A letter with its event and the endpoint's words of refusal; ``repr`` leaves both out."""

    event: Event = field(repr=False)
    answer: str | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """As `DeadLetter.as_dict`, with what is personal data: `PERSONAL`."""
        return super().as_dict() | {"event": event_dict(self.event), "answer": self.answer}


PERSONAL = ("answer", "event")
"""What is to be shown of a letter only to who asked for it."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which letters are meant; the default means all. Ages count from the last failure."""

    reason: str | None = None
    status: int | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether reason and status are as asked for; the store looks at the ages."""
        return (self.reason is None or self.reason == letter.reason) and (
            self.status is None or self.status == letter.status
        )


ALL = Filter()


class Fate(Enum):
    """What became of one letter that was to be replayed or purged."""

    REPLAYED = "replayed"
    PURGED = "purged"
    GONE = "gone"
    """Not there any more: replayed, purged or removed for its age meanwhile."""
    BUSY = "busy"
    """Kept, and in the hands of another replay, or of one that was killed a moment ago."""
    NO_EVENT = "no_event"
    """Kept: what is in it is no event, so publishing it would only bring it back."""


def event_dict(event: Event) -> dict[str, Any]:
    """The event's four parts for a JSON document; personal data."""
    return {
        "url": event.url,
        "verb": event.verb,
        "headers": event.headers,
        "params": event.params,
    }


def id_of(kept: Kept) -> str:
    """The letter's id: the same for the same event in the same task."""
    identity = f"{kept.task_id}\n{kept.event.url}\n{kept.event.body}".encode()
    return hashlib.sha256(identity).hexdigest()[:16]


def letter_text(kept: Kept, last_at: float) -> str:
    """What is known about an event that is kept; times are seconds since the epoch."""
    known = {**vars(kept), "last_at": last_at, "summary": kept.event.summary}
    del known["event"], known["answer"]
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


def event_text(event: Event, answer: str | None = None) -> str:
    """The event, unchanged, and beside it the endpoint's words, which may quote it."""
    return json.dumps(event_dict(event) | ({} if answer is None else {"answer": answer}))


def event_from(text: str | bytes) -> Event:
    """The event that `event_text` wrote; it need not be one, see `Event.raw`, nor if damaged."""
    try:
        parts = json.loads(text)
        return Event.raw(parts["url"], parts["params"], parts["verb"], parts["headers"])
    except (ValueError, LookupError, TypeError):
        return Event.raw(None, None, None, None)


def answer_from(text: str | bytes) -> str | None:
    """The endpoint's words that `event_text` wrote, if any; older letters have none."""
    try:
        answer = json.loads(text).get("answer")
    except (ValueError, AttributeError):
        return None
    return answer if isinstance(answer, str) else None


def _instant(seconds: float) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return _EPOCH  # a foreign producer may call anything its first time
