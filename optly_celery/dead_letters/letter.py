"""One dead letter, how it is written down, which letters are meant, and what becomes of one. Pure.

As JSON, the event apart from what is known about it: looking through letters so loads no event.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from ..event.event import Event
from ..event.printable import printable

UNREADABLE = "unreadable"
"""The reason of a letter of which something cannot be read."""

_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_LAST_S = 1e11  # in the year 5138
_LONGEST_TEXT = 1000
_LONGEST_REASON = 100


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

    def printable(self) -> DeadLetter:
        """What may stand in a line of a terminal or in a page, whoever wrote it."""
        texts: dict[str, Any] = {
            name: printable(text) for name, text in vars(self).items() if isinstance(text, str)
        }
        return replace(self, **texts)

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
    identity = f"{kept.task_id}\n{kept.event.url}\n{kept.event.body}".encode(errors="surrogatepass")
    return hashlib.sha256(identity).hexdigest()[:16]


def letter_text(kept: Kept, last_at: float) -> str:
    """What is known about an event that is kept; times are seconds since the epoch."""
    known = {**vars(kept), "last_at": last_at, "summary": kept.event.summary}
    del known["event"], known["answer"]
    return json.dumps(known | {"error": kept.reason if kept.error is None else kept.error})


def letter_of(letter_id: str, text: str | bytes | None) -> DeadLetter:
    """The letter that `letter_text` wrote, with the reason `UNREADABLE` where anything is odd.

    Somebody else may have written it. One odd letter must not hide the others, and has to be
    purged like any other, so what can be read of it is shown and the rest is left out.
    """
    facts = _Facts(text)
    letter = DeadLetter(
        id=letter_id,
        task_id=facts.take("task_id", _is_text, ""),
        reason=facts.take("reason", _is_reason, UNREADABLE),
        error=facts.take("error", _is_text, UNREADABLE),
        status=facts.take("status", _is_status, None),
        attempts=facts.take("attempts", _is_count, 0),
        first_at=_instant(facts.take("first_at", _is_number, 0.0)),
        last_at=_instant(facts.take("last_at", _is_number, 0.0)),
        summary=facts.take("summary", _is_text, "?"),
    )
    return replace(letter, reason=UNREADABLE) if facts.odd else letter


class _Facts:
    """Facts as they were written down, each one looked at before it is used."""

    def __init__(self, text: str | bytes | None) -> None:
        known = _read(text)
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}
        self.odd = False

    def take(self, name: str, is_right: Callable[[Any], bool], otherwise: Any) -> Any:
        if name in self._known and is_right(self._known[name]):
            return self._known[name]
        self.odd = True
        return otherwise


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_reason(value: Any) -> bool:
    return _is_text(value) and 0 < len(value) <= _LONGEST_REASON and printable(value) == value


def _is_status(value: Any) -> bool:
    return value is None or (type(value) is int and 100 <= value <= 999)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**30  # a row has room for it


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _read(text: str | bytes | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def event_text(event: Event, answer: str | None = None) -> str:
    """The event, unchanged, and beside it the endpoint's words, which may quote it."""
    return json.dumps(event_dict(event) | ({} if answer is None else {"answer": answer}))


def event_from(text: str | bytes | None) -> Event:
    """The event that `event_text` wrote; it need not be one, see `Event.raw`, nor if damaged."""
    try:
        parts = _read(text)
        return Event.raw(parts["url"], parts["params"], parts["verb"], parts["headers"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return Event.raw(None, None, None, None)


def answer_from(text: str | bytes | None) -> str | None:
    """The endpoint's words that `event_text` wrote, if any; older letters have none."""
    parts = _read(text)
    answer = parts.get("answer") if isinstance(parts, dict) else None
    return answer if isinstance(answer, str) else None


def _instant(seconds: float) -> datetime:
    # A foreign producer may call anything its first time, and a page shows it in any time zone.
    known = 0 <= seconds <= _LAST_S
    return _EPOCH + timedelta(seconds=seconds) if known else _EPOCH
