"""A bound of how many messages wait in a worker for their time.

Celery's ``worker_eta_task_limit`` forgets what it did not grant: after the limit was reached, each
message whose time comes takes one from the worker's prefetch limit, down to 1, and there it stays
until the worker connects anew. Celery before 5.6 has no limit.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from kombu.common import QoS


class LimitedQoS(QoS):  # type: ignore[misc]
    """How many messages a worker may hold: the prefetch limit and those that wait, up to a limit.

    At the limit it receives no more until some of them have had their time.
    """

    value: int

    def __init__(self, callback: Any, initial_value: int, limit: int) -> None:
        super().__init__(callback, initial_value)
        self._wanted = self.value
        self._limit = max(limit, self.value)

    def increment_eventually(self, n: int = 1) -> int:
        return self._change(max(n, 0))

    def decrement_eventually(self, n: int = 1) -> int:
        return self._change(-n)

    def _change(self, by: int) -> int:
        with self._mutex:
            if self.value:  # 0 stands for no limit at all
                self._wanted = max(self._wanted + by, 1)
                self.value = min(self._wanted, self._limit)
            return self.value


class EtaLimit(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step that puts it in place, where the configuration has a limit."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        limit = consumer.app.conf.get("worker_eta_task_limit")
        if limit is not None:
            consumer.qos = LimitedQoS(
                consumer.qos.callback, consumer.initial_prefetch_count, int(limit)
            )
