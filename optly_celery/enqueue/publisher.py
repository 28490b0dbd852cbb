"""An event's way into the broker, within a time limit. The only producer-side kombu."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.utils import uuid
from kombu import Exchange, Producer, Queue

from ..errors import PublishError, TransientDeliveryError
from ..event import Event
from ..names import DELIVER_TASK, ENQUEUED_AT_HEADER

_REASONS = {
    "TimeoutError": "broker_timeout",
    "OutOfMemoryError": "broker_out_of_memory",
    "ReadOnlyError": "broker_read_only",
    "ResponseError": "broker_refused",
    "ConnectionError": "broker_unreachable",
    "OSError": "broker_unreachable",
}


class Publisher:
    """Publishes deliver tasks, by name: nothing here imports the task.

    Producers have connections of their own, as transport options with short timeouts would also
    reach the blocking pop of a worker. One call uses one producer; idle ones are kept for the
    next, last one first, so there are as many as there were calls at the same time.
    """

    def __init__(self, app: Celery, *, queue: str, timeout_s: float) -> None:
        self._app = app
        self._queue_name = queue
        self._timeout_s = timeout_s
        self._idle: deque[Producer] = deque()
        self._queue: Queue | None = None

    def publish(self, event: Event) -> None:
        """Return once the broker has the event's message.

        In an app with ``task_always_eager`` the event is delivered here and now instead.

        Raises:
            PublishError: it does not have it, or did not say so within the timeout; in that one
                case the message may be there all the same.
        """
        if self._app.conf.task_always_eager:
            return self._deliver_eagerly(event)
        amqp = self._app.amqp
        message = amqp.as_task_v2(
            uuid(),
            DELIVER_TASK,
            argsrepr=event.summary,
            kwargsrepr="{}",
            ignore_result=True,
            create_sent_event=self._app.conf.task_send_sent_event,
        )
        try:
            with self.producer() as producer:
                amqp.send_task_message(
                    producer,
                    DELIVER_TASK,
                    message._replace(body=event.message_body),
                    queue=self._resolve_queue(),
                    declare=self._declarations(producer),
                    retry=False,
                    headers={ENQUEUED_AT_HEADER: time.time()},
                    # The body is JSON text already, so kombu passes it on as it is.
                    content_type="application/json",
                    content_encoding="utf-8",
                )
        except PublishError:
            raise
        except Exception as exc:
            # Not chained: whatever kombu or redis-py says may quote the message or the URL.
            raise PublishError(
                f"{event.summary}: not published ({type(exc).__name__})", reason=_reason(exc)
            ) from None

    @contextlib.contextmanager
    def producer(self) -> Iterator[Producer]:
        """A producer whose every network call is limited, for the length of the block.

        One that fails is closed and not used again.
        """
        try:
            producer = self._idle.pop()
        except IndexError:
            producer = self._new_producer()
        try:
            yield producer
        except BaseException:
            _close(producer)
            raise
        self._idle.append(producer)

    def close(self) -> None:
        """Close idle connections; a later `publish` opens new ones."""
        while self._idle:
            _close(self._idle.pop())

    def _new_producer(self) -> Producer:
        # Half of the limit for each wait: connecting to a dead host or waiting for a hung one
        # takes one of them, and a connection that dies between the two takes both.
        half_s = self._timeout_s / 2
        connect = self._app.connection_for_write
        options: dict[str, Any] = {"max_retries": 0}
        if _is_redis(connect()):
            options |= {"socket_timeout": half_s, "socket_connect_timeout": half_s}
        connection = connect(connect_timeout=half_s, transport_options=options)
        return self._app.amqp.Producer(connection, auto_declare=False)

    def _resolve_queue(self) -> Queue:
        if self._queue is None:
            # Not amqp.queues[name]: that would add the queue to those that a worker consumes.
            queues = self._app.amqp.queues
            name = self._queue_name
            known = name in queues
            self._queue = queues[name] if known else Queue(name, Exchange(name), routing_key=name)
        return self._queue

    def _declarations(self, producer: Producer) -> list[Queue]:
        # A Redis list needs no declaration, and it would cost two round trips; RabbitMQ drops
        # what is published to a queue that is not there, and kombu remembers what it declared.
        return [] if _is_redis(producer.connection) else [self._resolve_queue()]

    def _deliver_eagerly(self, event: Event) -> None:
        self._app.loader.import_task_module("optly_celery.tasks")
        task = self._app.tasks[DELIVER_TASK]
        try:
            result = task.apply(
                (event.url, event.verb, event.wire_params), {"headers": event.headers}
            )
            error = result.result if result.failed() else None
        except TransientDeliveryError as exc:  # task_eager_propagates
            error = exc
        if isinstance(error, TransientDeliveryError):
            raise PublishError(str(error), reason="eager_delivery_failed")


def _is_redis(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "redis")


def _reason(exc: BaseException) -> str:
    seen: BaseException | None = exc
    while seen is not None:
        for cls in type(seen).__mro__:
            if cls.__name__ in _REASONS:
                return _REASONS[cls.__name__]
        seen = seen.__cause__
    return "broker_error"


def _close(producer: Producer) -> None:
    with contextlib.suppress(Exception):
        producer.connection.release()
