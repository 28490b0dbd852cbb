"""A worker's threads on one CPU, where they hand the interpreter on to each other for less.

Python runs one thread of a process at a time. Where the next one is on another CPU, handing on
wakes that CPU up, and finds its caches cold: a quarter of what an event costs a worker
(docs/decisions/0013-cpu-of-a-worker.md). So a worker keeps its threads together. Once a second its
main thread may go where it likes for a moment, and the others follow it: the kernel, which knows
what else runs, chooses the CPU.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool

from ...broker_errors import in_words
from ...runtime.process import runtime_of

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_FREE_S = 0.05


class OneCpu(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step of a worker with a pool of threads, on Linux, that delivers and nothing else.

    Other tasks may use several CPUs, in C code or in processes that they start.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    _entry: Any = None

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._consumer = consumer
        self._allowed: set[int] = set()

    def include_if(self, consumer: Any) -> bool:
        settings = runtime_of(consumer.app).settings
        return (
            settings.one_cpu
            and sys.platform == "linux"
            and getattr(sys, "_is_gil_enabled", lambda: True)()
            and isinstance(consumer.pool, TaskPool)
            and set(consumer.app.amqp.queues.consume_from) == {settings.queue}
        )

    def start(self, consumer: Any) -> None:
        self._allowed = self._allowed or os.sched_getaffinity(0)
        if len(self._allowed) > 1:
            self._entry = consumer.timer.call_repeatedly(_EVERY_S, self._look)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
            self._let_go(_threads())

    shutdown = stop

    def _look(self) -> None:
        self._let_go([0])  # this one, the main thread
        self._consumer.timer.call_after(_FREE_S, self._gather)

    def _gather(self) -> None:
        if self._entry is None:
            return
        try:
            _keep(_threads(), {_current_cpu()})
        except (OSError, ValueError) as exc:
            logger.info("the threads stay where they are (%s)", in_words(exc))
            self.stop(self._consumer)

    def _let_go(self, threads: Iterable[int]) -> None:
        with contextlib.suppress(OSError):  # its own wish, so it was allowed before
            _keep(threads, self._allowed)


def _threads() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]


def _keep(threads: Iterable[int], cpus: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(thread, cpus)


def _current_cpu() -> int:
    """The number of the CPU that runs this: field 39 of proc_pid_stat(5)."""
    text = Path("/proc/thread-self/stat").read_text()
    return int(text.rpartition(")")[2].split()[36])
