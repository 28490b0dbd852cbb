"""Dead letters for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optly_celery.dead_letters.letter import Kept
from optly_celery.dead_letters.store import DeadLetters
from optly_celery.event.event import Event
from optly_celery.event.payload import uuids_of

from .support import US_URL, Broker, params_of

DAY_S = 86_400.0


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def store(broker: Broker, **options: Any) -> DeadLetters:
    """The dead letters of a test's broker."""
    return DeadLetters(broker.url, **{"max_age_s": 30 * DAY_S, **options})


def event_of(number: int, **context: Any) -> Event:
    """An event that is like no other number's."""
    return Event.of(US_URL, params_of(f"visitor-{number}", f"uuid-{number}", **context))


def keep(
    dead: DeadLetters, number: int = 0, *, reason: str = "http_400", status: int | None = 400
) -> str:
    """Keep one letter; its id."""
    return dead.keep(kept(event_of(number), f"task-{number}", reason=reason, status=status))


def kept(event: Event, task_id: str = "t", **fields: Any) -> Kept:
    """An event that is to be kept."""
    usual = {"reason": "http_400", "attempts": 1, "first_at": 1_700_000_000.0}
    return Kept(event=event, task_id=task_id, **{**usual, **fields})


def published_uuids(broker: Broker, queue: str = "optimizely") -> Iterator[str]:
    """The uuids of the events whose messages wait in the broker, in no order."""
    import base64
    import json

    for message in broker.client().lrange(queue, 0, -1):
        args, _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
        yield from uuids_of(args[2])
