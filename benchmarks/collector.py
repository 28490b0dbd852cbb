"""A collector that can be well, answer 503, refuse connections, and hang; for benchmarks.

The server of `optly_celery.testing.stand_in`, in a process of its own, but without that program's
bookkeeping: it must not slow down what is measured. It reads no JSON and keeps no bodies; what it
counts is in memory that it shares with the benchmark, which looks two hundred times a second, and
which is still there when the process was killed so that connections are refused.
"""

from __future__ import annotations

import ctypes
import enum
import multiprocessing
import re
import signal
import time
from typing import Any

from parts import free_port, wait_for

from optly_celery.testing.server import HANG, Answer, Server

_VISITOR = re.compile(rb'"visitor-(\d+)"')
_SPAWN = multiprocessing.get_context("spawn")


class State(enum.IntEnum):
    WELL = 0
    ANSWERS_503 = 1
    REFUSES = 2
    HANGS = 3


class CountingCollector:
    """Use it as a context manager. It counts the events that it has taken.

    Of up to ``watched`` events by visitors 0, 1, …, each in a POST of its own, it knows more: when
    it was asked, and which it has taken how often.
    """

    def __init__(self, latency_s: float, *, watched: int = 0) -> None:
        self._port, self._latency_s = free_port(), latency_s
        self._state = _SPAWN.Value(ctypes.c_int, State.WELL, lock=False)
        self._taken = _SPAWN.Value(ctypes.c_long, 0, lock=False)
        self._asked = _SPAWN.Value(ctypes.c_long, 0, lock=False)
        # When, on the machine's monotonic clock; below 0 where it was not well.
        room = 4 * watched + 100_000 if watched else 0
        self._at = _SPAWN.Array(ctypes.c_double, room, lock=False)
        self._times = _SPAWN.Array(ctypes.c_int, watched, lock=False)
        self._process: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1/events"

    @property
    def events(self) -> int:
        """How many it has taken; one that came again counts again."""
        return int(self._taken.value)

    def __enter__(self) -> CountingCollector:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def become(self, state: State) -> None:
        """Change for requests to come: one that hangs goes on hanging."""
        self._state.value = state
        if state is State.REFUSES:
            self._stop()
        elif self._process is None:
            self._start()

    def delivered(self, since: float = 0.0, until: float = float("inf")) -> int:
        return sum(since <= at < until for at in self._seen())

    def first(self, since: float) -> float:
        """When the first one was delivered since then."""
        return min((at for at in self._seen() if at >= since), default=float("inf"))

    def asked(self, since: float, until: float) -> int:
        """How many requests came and were not answered well."""
        return sum(since <= -at < until for at in self._seen())

    def lost_and_twice(self) -> tuple[int, int]:
        times = self._times[:]
        return times.count(0), sum(n - 1 for n in times if n)

    def _seen(self) -> list[float]:
        return self._at[: self._asked.value]

    def _start(self) -> None:
        counts = (self._taken, self._asked, self._at, self._times)
        self._process = _SPAWN.Process(
            target=_serve, args=(self._port, self._latency_s, self._state, counts), daemon=True
        )
        self._process.start()
        wait_for(self._port)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(port: int, latency_s: float, state: Any, counts: tuple[Any, ...]) -> None:
    taken, asked, at, times = counts
    answers = {State.ANSWERS_503: Answer(503), State.HANGS: HANG}
    watched = len(times)

    def choose(_method: str, _target: str, body: bytes) -> Answer | None:
        answer = answers.get(state.value)
        if answer is None:
            taken.value += body.count(b'"uuid"')  # a batch has many
        if watched:
            at[asked.value] = time.monotonic() * (1 if answer is None else -1)
            asked.value += 1
            if answer is None and (found := _VISITOR.search(body)):
                times[int(found[1])] += 1
        return answer

    with Server(port=port, latency_s=latency_s, choose=choose, keep=False):
        signal.pause()
