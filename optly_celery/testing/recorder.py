"""A dispatcher that keeps what it is given."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..errors import NotAnEventError
from ..event.event import Event
from ..event_dispatcher import diverted
from ..runtime.process import counters
from .assertions import Recorded
from .records import Conversion, Decision, read


class RecordingDispatcher(Recorded):
    """Give this to the SDK as ``event_dispatcher``; or let `recording` catch what is dispatched.

    Refuses what `optly_celery.EventDispatcher` refuses. ``dispatched`` are the events themselves,
    each with url, verb, headers, params and body. Threads may use it at the same time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dispatched: list[Event] = []
        self._refused_before = _refused()

    def dispatch_event(self, event: Any) -> None:
        """Record one event of the SDK; raises nothing."""
        try:
            found = Event.of(
                getattr(event, "url", None),
                getattr(event, "params", None),
                getattr(event, "http_verb", None),
                getattr(event, "headers", None),
            )
        except NotAnEventError as exc:
            counters().refuse(exc.reason)
            return
        self.record(found)

    def record(self, event: Event) -> None:
        """Record one event."""
        with self._lock:
            self._dispatched.append(event)

    @property
    def dispatched(self) -> list[Event]:
        """The events, as they would have gone to the broker."""
        with self._lock:
            return list(self._dispatched)

    @property
    def events(self) -> list[Decision | Conversion]:
        return [found for event in self.dispatched for found in read(event.params)]

    @property
    def refused(self) -> dict[str, int]:
        """What this process has refused since this was made, by reason: it was no event."""
        return dict(_refused() - self._refused_before)

    @property
    def trouble(self) -> list[str]:
        return [f"refused: {count} x {reason}" for reason, count in self.refused.items()]

    def clear(self) -> None:
        """Forget everything so far."""
        with self._lock:
            self._dispatched.clear()
        self._refused_before = _refused()


@contextlib.contextmanager
def recording() -> Iterator[RecordingDispatcher]:
    """Record what is dispatched through optly_celery in this process, instead of sending it.

    From every thread, whichever client it comes from and however Celery is configured; not from
    other processes.
    """
    recorder = RecordingDispatcher()
    with diverted(recorder.record):
        yield recorder


def _refused() -> Counter[str]:
    refused = counters().as_dict()["refused"]
    return Counter(refused if isinstance(refused, dict) else {})
