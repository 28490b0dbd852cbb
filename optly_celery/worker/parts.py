"""What one worker's consumer has for the deliver task, made once, and handed to each part of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery.worker import state

from ..names import DELIVER_TASK
from ..runtime.process import runtime_of
from .borrowed import PAUSE, REQUEST, missing
from .loop import Loop
from .pause.policy import Pauses
from .pause.step import Pausing
from .set_aside import SetAside
from .suspects import Suspects
from .unreadable import Unreadable

_GIVE_BACK_S = 30.0


class Parts:
    """The parts, each with what it needs."""

    def __init__(self, consumer: Any) -> None:
        runtime = runtime_of(consumer.app)
        settings, dead = runtime.settings, runtime.dead_letters
        self.missing: Mapping[str, Sequence[str]] = missing()
        """Features that this Celery or kombu does not carry, with what is gone; see `borrowed`."""
        pauses = Pauses(
            # The request tells how events end, so nothing is learnt without it.
            after=0 if {PAUSE, REQUEST} & self.missing.keys() else settings.pause_after,
            longest_s=settings.retry_backoff_max,
            clock=time.monotonic,
        )
        self.queue = queue = settings.queue
        self.loop = Loop(consumer)
        self.pausing = Pausing(
            consumer, self.loop, pauses, queue=queue, url_override=settings.url_override
        )
        self.suspects = Suspects(dead, self.loop)
        self.give_back_s = min(_GIVE_BACK_S, settings.retry_backoff_max)
        """How long to wait where the retry policy has nothing to say: not longer than a backoff, so
        that the visibility timeout is not reached."""
        self.unreadable = Unreadable(
            consumer, self.loop, dead, self.suspects, queue=queue, give_back_s=self.give_back_s
        )
        self.set_aside = SetAside(consumer, self.loop, dead, queue=queue)
        self._late_after_s = runtime.longest_task_s + runtime.longest_post_s
        # Only there does a kill look like a success.
        self._returned: set[str] | None = set() if consumer.pool.is_green else None

    def late(self) -> int:
        """How many events are under way for longer than any may be: their threads are stuck."""
        before = time.time() - self._late_after_s
        return sum(
            1
            for request in tuple(state.active_requests)
            if request.type == DELIVER_TASK and (request.time_start or before) < before
        )

    def note_return(self, task_id: str) -> None:
        """The task has run to its end, in this process."""
        if self._returned is not None:
            self._returned.add(task_id)

    def has_returned(self, task_id: str) -> bool:
        """Whether a task that has ended without an error has run to its end."""
        if self._returned is None:
            return True
        if task_id not in self._returned:
            return False
        self._returned.discard(task_id)
        return True


def parts_of(consumer: Any) -> Parts:
    """This consumer's parts: two workers in one process have each their own.

    Raises:
        SettingsError: the configuration is wrong; a worker that has started has seen that it is
            not.
    """
    found = known_parts(consumer)
    if found is None:
        found = consumer.optly_parts = Parts(consumer)
    return found


def known_parts(consumer: Any) -> Parts | None:
    """The same, where they have been made; None for no consumer as well."""
    return getattr(consumer, "optly_parts", None)
