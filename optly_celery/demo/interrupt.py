"""Ctrl-C and SIGTERM, noticed where it is safe to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody asked the demo to stop; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Remember the first signal to stop, and give a check that goes on or stops there.

    A flag, not an exception out of nowhere: nothing is left half started or half cleaned up, and
    code that catches everything cannot swallow it. Only the main thread can use it. The check
    raises `Interrupted` once a signal has come.
    """
    came: list[int] = []

    def check() -> None:
        if came:
            raise Interrupted(came[0])

    # What was ignored stays so: a shell's background job ignores Ctrl-C, nohup a hangup.
    heard = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, lambda number, _: came.append(number)) for s in heard}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
