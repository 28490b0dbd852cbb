"""A signal to end at once is obeyed between two turns of the worker's loop, not in a log line.

Celery's cold shutdown (SIGQUIT, a second Ctrl-C, SIGTERM under ``REMAP_SIGTERM``) waits for the
pool's threads inside the signal handler. Where the main thread was just writing to its log, those
threads wait for the log, and so for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
from time import monotonic
from types import FrameType
from typing import Any

from celery.worker import state

from ..host.periodic import Periodic

_SIGNALS = ("SIGQUIT", "SIGINT", "SIGTERM")
_WAITS_FOR_THREADS = "worker_Cold"  # as celery.apps.worker._shutdown_handler names it
_LOOP_S = 3.0  # a loop that does not turn, as without a broker, is not waited for any longer
_AGAIN_S = 0.05


def between_turns(consumer: Any) -> None:
    """Have Celery's handlers called there, now that they are in place; main thread only."""
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is None:
            continue
        theirs = signal.getsignal(number)
        if callable(theirs) and not isinstance(theirs, _Later):
            with contextlib.suppress(ValueError):  # a worker in another thread has no signals
                signal.signal(number, _Later(consumer, number, theirs))


class _Later:
    """One of Celery's handlers, called by the loop; or here, where the loop does not turn."""

    def __init__(self, consumer: Any, number: int, theirs: Any) -> None:
        self._consumer = consumer
        self._number = number
        self._theirs = theirs
        self._pid = os.getpid()
        self._waits = getattr(theirs, "__name__", "") == _WAITS_FOR_THREADS
        self._ends_at = 0.0  # the loop's time to come to it
        self._queued = self._done = False
        self._nudge = Periodic(self._remind, name="optly_celery-signal")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child of a pool, which has the handler by inheritance
            self._theirs(number, frame)
        elif not (self._waits and self._is_to_wait(frame) and self._nudge.wake()):
            self._obey()

    def _is_to_wait(self, frame: FrameType | None) -> bool:
        now = monotonic()
        self._ends_at = self._ends_at or now + _LOOP_S
        # Also when it is said again: in gevent's hub, where a handler may run, nothing can wait.
        return (_turns() and now < self._ends_at) or _is_logging(frame)

    def _remind(self) -> float:
        """In a thread of its own, which a handler may not do: the loop's queue has a lock."""
        if not self._queued and _turns():
            self._queued = True
            self._consumer.call_soon(self._obey)
        elif monotonic() >= self._ends_at or not _turns():
            os.kill(self._pid, self._number)
            return _AGAIN_S
        return max(_AGAIN_S, self._ends_at - monotonic())

    def _obey(self) -> None:
        if self._done:
            return
        self._done = True
        self._nudge.stop(0.0)
        try:
            self._theirs(self._number, None)
        finally:
            between_turns(self._consumer)  # Celery has others now


def _turns() -> bool:
    """Whether the loop does: not any more, once it has been told to stop."""
    stop = state.should_stop  # the exit code, and 0 is one
    return stop is None or stop is False


def _is_logging(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == "logging":
            return True
        frame = frame.f_back
    return False
