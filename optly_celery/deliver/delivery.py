"""One attempt to deliver one event, and what follows from it.

Neither Celery nor sockets here: ``tasks.py`` turns the outcome into a Celery retry or failure,
``transport.py`` owns the wire, `dead_letters` the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..dead_letters.letter import Kept
from ..errors import (
    DeadLetterError,
    DeliveryError,
    PermanentDeliveryError,
    TransientDeliveryError,
    forget_frames,
)
from ..event.batch import cut, join, split
from ..event.event import Event
from .retry import RetryPolicy, is_splittable
from .transport import Transport


class Keeper(Protocol):
    """What `deliver` needs of the dead letter store."""

    def keep(self, kept: Kept) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Which attempt this is; ``number`` counts from 1, a broker redelivery does not raise it.

    ``first_at`` is when the event was first enqueued and ``age_s`` how long ago that is; ``parts``
    are the last attempt's `Outcome.parts`.
    """

    task_id: str
    number: int
    first_at: float
    age_s: float
    parts: tuple[int, ...] = ()

    def kept(self, event: Event, reason: str, error: DeliveryError | None = None) -> Kept:
        """What is to be kept of an event after this attempt."""
        return Kept(
            event=event,
            task_id=self.task_id,
            reason=reason,
            attempts=self.number,
            first_at=self.first_at,
            error=error.reason if error else None,
            status=error.status if error else None,
            answer=getattr(error, "answer", None),
        )


@dataclass(frozen=True)
class Outcome:
    """Where an attempt left the event: all of it delivered when every field is as by default.

    ``rest`` is what has to be attempted again, in ``retry_in_s`` seconds, because of ``error``, and
    ``parts`` the numbers of visitors in the parts into which it has been split, so that splitting
    goes on where it stopped; ``refused`` are the refusals of what was kept as dead letters.
    """

    rest: Event | None = None
    retry_in_s: float = 0.0
    error: TransientDeliveryError | None = None
    refused: tuple[DeliveryError, ...] = ()
    parts: tuple[int, ...] = ()


def _never() -> None:
    return None


def deliver(
    event: Event,
    attempt: Attempt,
    *,
    via: Transport,
    policy: RetryPolicy,
    dead: Keeper,
    interrupted: Callable[[], str | None] | None = None,
) -> Outcome:
    """POST the event once, in parts if it is refused as a whole, and decide what comes next.

    Nothing is lost whatever happens: each visitor is delivered, kept, or part of ``rest``. What
    was accepted is not part of ``rest``, so only a crash can post it again.

    ``interrupted`` is asked before each POST but the first, so that every go gets further; a word
    is the reason to stop there. That is no failure: it spends no attempt, and waits for nothing.
    """
    waiting = cut(event, attempt.parts)
    asked: Callable[[], str | None] = _never
    refused: list[DeliveryError] = []

    def end(part: Event, exc: DeliveryError, reason: str) -> None:
        # Kept before the ack: a crash in between leaves a duplicate, never a loss.
        dead.keep(attempt.kept(part, reason, exc))
        forget_frames(exc)
        exc.answer = None  # it is kept, and nobody else is to be told
        refused.append(exc)

    def later(exc: TransientDeliveryError, at_least_s: float | None = None) -> Outcome:
        forget_frames(exc)
        wait_s = policy.backoff_s(attempt.number, at_least_s) if exc.spends else 0.0
        sizes = tuple(len(part.visitors) for part in waiting) if len(waiting) > 1 else ()
        return Outcome(join(waiting), wait_s, exc, tuple(refused), sizes)

    while waiting:
        part = waiting[0]
        why = asked()
        if why is not None:
            return later(TransientDeliveryError(f"{part.summary}: {why}", reason=why, spends=False))
        asked = interrupted or _never
        try:
            try:
                via.post(part)
            except TransientDeliveryError as exc:
                reason = policy.gives_up(attempt.number, attempt.age_s)
                if reason is None:
                    return later(exc, exc.retry_after_s)
                end(join(waiting), exc, reason)
                break
            except PermanentDeliveryError as exc:
                if is_splittable(exc.status) and len(part.visitors) > 1:
                    waiting[:1] = split(part)
                    continue
                end(part, exc, exc.reason)
        except DeadLetterError as exc:
            # Neither delivered nor kept, so it stays in the queue, however many attempts it had.
            return later(
                TransientDeliveryError(
                    f"{part.summary}: dead letter store: {exc}", reason="dead_letter_store"
                )
            )
        waiting.pop(0)
    return Outcome(refused=tuple(refused))
