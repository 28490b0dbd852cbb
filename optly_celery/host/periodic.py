"""One background thread that does a piece of work whenever it is woken, and now and then anyway."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_AFTER_ERROR_S = 5.0


class Periodic:
    """A daemon thread, started by the first `wake`, that calls ``work`` until it is stopped.

    ``work`` returns how many seconds may pass until the next call; a `wake` ends that wait. An
    object of a process that forked has no thread in the child: make a new one there.
    """

    def __init__(self, work: Callable[[], float], *, name: str) -> None:
        self._work = work
        self._name = name
        self._awake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()

    def wake(self) -> bool:
        """Have ``work`` called soon. Returns False where no thread can be started any more."""
        if self._awake.is_set() and self._thread is not None:
            return True  # it has been told and not looked yet
        self._awake.set()
        return (self._thread is not None and self._thread.is_alive()) or self._start()

    def stop(self, timeout_s: float) -> bool:
        """Let the current call end and no other begin; wait for that. True if it has ended."""
        self._stopping = True
        self._awake.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, timeout_s))
        return not thread.is_alive()

    def _start(self) -> bool:
        with self._start_lock:
            if self._stopping:
                return False
            if self._thread is not None and self._thread.is_alive():
                return True
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down, or the system is out of threads
                return False
            self._thread = thread
            return True

    def _run(self) -> None:
        # A greenlet, unlike a thread, goes on in a forked child, with what is its parent's.
        mine = os.getpid()
        while not self._stopping and os.getpid() == mine:
            self._awake.clear()
            try:
                wait_s = self._work()
            except Exception:
                # The thread must outlive a fault: what it carries is on disk and will be tried
                # again, and a thread that died would say nothing.
                logger.exception("%s: unexpected error, again in %g s", self._name, _AFTER_ERROR_S)
                wait_s = _AFTER_ERROR_S
                time.sleep(_AFTER_ERROR_S)
            self._awake.wait(wait_s)
