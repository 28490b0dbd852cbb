"""An endpoint that can be well, answer 503, refuse connections, and hang; for benchmarks.

It is in a process of its own, and keeps no bodies: it must not slow down what is measured.
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

from optly_celery.testing.server import Answer, Server

_HANG_S = 3600.0
_VISITOR = re.compile(rb'"visitor-(\d+)"')
_SPAWN = multiprocessing.get_context("spawn")


class State(enum.IntEnum):
    WELL = 0
    ANSWERS_503 = 1
    REFUSES = 2
    HANGS = 3


class Endpoint:
    """Use it as a context manager. It knows when it was asked, and which events it has."""

    def __init__(self, events: int, latency_s: float) -> None:
        self._port, self._latency_s = free_port(), latency_s
        self._state = _SPAWN.Value(ctypes.c_int, State.WELL, lock=False)
        self._count = _SPAWN.Value(ctypes.c_long, 0, lock=False)
        # When, on the machine's monotonic clock; below 0 where it was not well.
        self._at = _SPAWN.Array(ctypes.c_double, 4 * events + 100_000, lock=False)
        self._times = _SPAWN.Array(ctypes.c_int, events, lock=False)
        self._process: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1/events"

    def __enter__(self) -> Endpoint:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def become(self, state: State) -> None:
        """Change for requests to come: one that hangs goes on hanging when the endpoint is well."""
        self._state.value = state
        if state is State.REFUSES:
            self._stop()
        if self._process is None and state is not State.REFUSES:
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
        return self._at[: self._count.value]

    def _start(self) -> None:
        self._process = _SPAWN.Process(
            target=_serve,
            args=(self._port, self._latency_s, self._state, (self._count, self._at, self._times)),
            daemon=True,
        )
        self._process.start()
        wait_for(self._port)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(port: int, latency_s: float, state: Any, seen: tuple[Any, Any, Any]) -> None:
    count, at, times = seen
    answers = {State.ANSWERS_503: Answer(503), State.HANGS: Answer(204, {}, _HANG_S)}

    def choose(_method: str, _target: str, body: bytes) -> Answer | None:
        answer = answers.get(state.value)
        at[count.value] = time.monotonic() * (1 if answer is None else -1)
        count.value += 1
        if answer is None and (found := _VISITOR.search(body)):
            times[int(found[1])] += 1
        return answer

    with Server(port=port, latency_s=latency_s, choose=choose, keep=False):
        signal.pause()
