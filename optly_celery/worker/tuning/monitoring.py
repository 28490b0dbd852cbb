"""What a worker tells monitors, such as Flower: gathered, and sent ten times a second.

Celery sends three events for each task, as soon as its loop turns or one by one: in a busy worker
that is a message for every few of them, a tenth of its CPU, and under gevent a third. And before
5.7 it forgot those that came, from the threads of a pool, while it was sending the others
(celery/celery#10434).
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import bootsteps
from celery.events import EventDispatcher

from ...broker_errors import in_words
from .. import older

logger = logging.getLogger(__name__)

_EVERY_S = 0.1


class Monitoring(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step; Celery starts it again, with a new dispatcher, after each reconnection."""

    requires = ("celery.worker.consumer.events:Events",)

    _entry: Any = None

    def start(self, consumer: Any) -> None:
        dispatcher = consumer.event_dispatcher
        dispatcher.buffer_group = {"task"}
        dispatcher.buffer_limit = sys.maxsize  # what a tenth of a second brings is the bound
        dispatcher.on_send_buffered = None
        self._entry = consumer.timer.call_repeatedly(_EVERY_S, self._send, (dispatcher,))

    def stop(self, consumer: Any) -> None:
        """From here on each event goes by itself: nothing would send what is gathered."""
        if self._entry is not None:
            self._entry.cancel()
        dispatcher = consumer.event_dispatcher
        if dispatcher is not None:
            dispatcher.buffer_group = frozenset()
            self._send(dispatcher)

    shutdown = stop  # threads of the pool may have been on their way to add some

    def _send(self, dispatcher: EventDispatcher) -> None:
        try:
            if dispatcher.enabled:
                older.flush(dispatcher)
        except Exception as exc:  # noqa: BLE001 - the connection's trouble is for Celery to see
            logger.warning("monitors were not told yet (%s)", in_words(exc))
