"""What became of the events of this process, counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .. import signals
from ..signals import tell

_QUIET_S = 60.0


class Counters:
    """Counters of one process, and its signals: what was accepted, and where it went.

    ``accepted = published + stored + dropped`` at any time at which no call is under way;
    ``refused`` is what was no event, and was not accepted. ``relayed`` counts what has left an
    outbox for the broker, this process's and those that it adopted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Held for additions only, never across I/O, so that greenlets cannot deadlock on it.
        self._lock = threading.Lock()
        self._clock = clock
        self._published = 0
        self._stored = 0
        self._relayed = 0
        self._dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._warned: dict[str, tuple[float, int]] = {}

    def publish(self) -> None:
        """Count an event that the broker has."""
        with self._lock:
            self._published += 1
        tell(signals.accepted)
        tell(signals.published)

    def store(self, outbox: Callable[[], Any]) -> None:
        """Count an event that the outbox has; ``outbox`` is asked how full it is if need be."""
        with self._lock:
            self._stored += 1
        if signals.accepted.receivers:
            tell(signals.accepted)
        if signals.stored.receivers:  # asked here as well: it is on the way of every event
            tell(signals.stored, outbox=outbox)

    def relay(self, events: int, outbox: Callable[[], Any]) -> None:
        """Count events that the broker has taken from an outbox."""
        with self._lock:
            self._relayed += events
        tell(signals.relayed, events=events, outbox=outbox)

    def drop(self, reason: str) -> int:
        """Count an accepted event as lost. As `refuse` for the number that it returns."""
        with self._lock:
            self._dropped[reason] += 1
            new = self._since_warning(reason, self._dropped[reason])
        tell(signals.accepted)
        tell(signals.dropped, reason=reason)
        return new

    def refuse(self, reason: str) -> int:
        """Count what was no event.

        Returns:
            How many to warn of now, with this reason; 0 for a minute after each warning.
        """
        with self._lock:
            self._refused[reason] += 1
            new = self._since_warning(reason, self._refused[reason])
        tell(signals.refused, reason=reason)
        return new

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The counters, as `optly_celery.stats` returns them."""
        with self._lock:
            return {
                "accepted": self._published + self._stored + self._dropped.total(),
                "published": self._published,
                "stored": self._stored,
                "relayed": self._relayed,
                "dropped": dict(self._dropped),
                "refused": dict(self._refused),
            }

    def _since_warning(self, reason: str, count: int) -> int:
        now = self._clock()
        when, told = self._warned.get(reason, (-_QUIET_S, 0))
        if now - when < _QUIET_S:
            return 0
        self._warned[reason] = (now, count)
        return count - told
