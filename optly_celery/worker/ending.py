"""When a task is to stop before its event is settled: its time is over, or its worker's."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any

from celery.signals import worker_shutting_down

from ..runtime.runtime import Runtime

SHUTDOWN, TASK_DEADLINE = "shutdown", "task_deadline"

# Of the time that the broker waits for an ack, for what comes after the last POST.
_TO_SETTLE = 0.1

# One byte that a worker shares with the children of its pool, which get none of its signals.
_shared: list[mmap.mmap] = []


def watch() -> None:
    """Notice from now on that this worker has been told to end. Before its pool forks."""
    _shared[:] = [mmap.mmap(-1, 1)]
    worker_shutting_down.connect(_begin)


def is_ending() -> bool:
    """Whether this worker, or that of this child of a pool, has been told to end."""
    return bool(_shared) and _shared[0][0] != 0


def interruption(
    runtime: Runtime, received_at: object, clock: Callable[[], float] = time.monotonic
) -> Callable[[], str | None]:
    """Why a task that begins now is not to make another POST, whenever that is asked.

    It ends within half the visibility timeout, and so early that the broker does not hand its
    message out again: that has been waiting since ``received_at``, perhaps for a backoff.
    """
    ends_at = clock() + runtime.longest_task_s
    known_s = runtime.visibility_timeout_s
    if known_s is not None and isinstance(received_at, float):
        ends_at = min(ends_at, received_at + known_s * (1 - _TO_SETTLE))
    last_start = ends_at - runtime.longest_post_s

    def look() -> str | None:
        if is_ending():
            return SHUTDOWN
        return TASK_DEADLINE if clock() > last_start else None

    return look


def _begin(**_: Any) -> None:
    for byte in _shared:
        byte[0] = 1
