"""Suspects: events that were in the hands of a worker that died, run one at a time and counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from celery.worker import state

from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from ..event.printable import printable
from ..names import SWEPT_HEADER
from .loop import Loop
from .message import kept_request

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""An event that was being delivered when so many workers, or children of one, died is poison."""

_LOOK_AGAIN_S = 0.05


class Suspects:
    """Has the messages that a dead worker left delivered one at a time, and counts the deaths.

    A worker dies with many messages in its hands, and one of them may be the reason. One at a
    time, with a note in Redis beforehand, shows which: it ends as a dead letter when it has killed
    again and again, and the others get delivered.
    """

    def __init__(self, dead: DeadLetters, loop: Loop) -> None:
        self._dead = dead
        self._loop = loop
        self._current: Any = None
        # By request: one may still be about to be forgiven when the next is let by.
        self._noted: MutableMapping[Any, int] = WeakKeyDictionary()

    def admit(self, request: Any, resume: Callable[[], None]) -> bool:
        """Whether a request may run now; if not, it was kept, or ``resume`` is called later."""
        if SWEPT_HEADER not in request.request_dict or self._current is request:
            return True
        if self._current is not None and self._current in state.reserved_requests:
            self._loop.later(_LOOK_AGAIN_S, resume)
            return False
        # Before the note is made: other greenlets come here while that waits for Redis.
        self._current, self._noted[request] = request, 0
        # The first death was not noted: nobody was suspected yet.
        self._noted[request] = self.strike(request.id, least=1)
        if self._noted[request] > MOST_DEATHS:
            self._current = None
            del self._noted[request]
            self.end(request, "killed_worker")
            return False
        return True

    def deaths(self, request: Any) -> int:
        """How many died of this request by now, a child of the pool having died a moment ago."""
        known = self._noted.get(request)
        return self.strike(request.id) if known is None else known

    def strike(self, name: str, *, least: int = 0) -> int:
        """Note what may be this task's fault, and how often; 0 when that cannot be noted."""
        try:
            return self._dead.strike(name, least=least)
        except DeadLetterError as exc:
            logger.warning("%s: it could not be noted: %s", printable(name), exc)
            return 0

    def unstrike(self, name: str) -> None:
        """Take such notes away."""
        try:
            self._dead.forgive(name)
        except DeadLetterError as exc:
            logger.info("%s: its note stays until it expires: %s", printable(name), exc)

    def forgive(self, request: Any) -> None:
        """What was suspected has lived through an attempt."""
        if self._noted.pop(request, None) is None:
            return
        if self._current is request:
            self._current = None
        self.unstrike(request.id)

    def end(self, request: Any, reason: str) -> None:
        """Keep a request's event, or its message where that is none, and ack; else give it back."""
        try:
            self._dead.keep(kept_request(request, reason))
        except DeadLetterError as exc:
            request.give_back(str(exc))
        else:
            request.end_as_kept(reason)
