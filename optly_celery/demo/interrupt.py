"""Ctrl-C and SIGTERM, noticed where it is safe to stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody asked the demo to stop; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupt:
    """Remembers the first signal to stop, while it is used as a context manager.

    A flag, not an exception out of nowhere: nothing is left half started or half cleaned up, and
    code that catches everything cannot swallow it. Only the main thread can use it.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Go on, or stop here.

        Raises:
            Interrupted: a signal has come.
        """
        if self._number is not None:
            raise Interrupted(self._number)

    def __enter__(self) -> Interrupt:
        # What was ignored stays so: a shell's background job ignores Ctrl-C, nohup a hangup.
        heard = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        self._before = {s: signal.signal(s, self._remember) for s in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self._number is None:
            self._number = number
