"""An event's way into the broker, within a time limit. The only producer-side kombu."""

from __future__ import annotations

import contextlib
import functools
import json
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, cast

from celery import Celery, signals
from celery.exceptions import Reject
from celery.utils import uuid
from kombu import Exchange, Producer, Queue

from ..broker_errors import reason_of
from ..errors import DeliveryError, PermanentDeliveryError, PublishError
from ..event.event import Event
from ..names import DELIVER_TASK, ENQUEUED_AT_HEADER

COMPRESS_BYTES = 4096
"""Bodies from this size on are compressed: a single event is not, a batch is."""

_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


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

    def prepare(self) -> None:
        """Import and build, here and now, all that publishing needs short of a connection.

        For before a thread publishes: a fork in the middle of its imports, or of what kombu makes
        under a lock, would leave the child with locks that nobody releases.
        """
        with contextlib.suppress(Exception):  # publishing will meet it, and say so
            self._new_producer()
            self._resolve_queue()
            _ = self._app.amqp.send_task_message  # made on first look
            "localhost".encode("idna")  # as every look-up of a host does

    def publish(self, event: Event) -> None:
        """Return once the broker has the event's message.

        In an app with ``task_always_eager`` the event is delivered here and now instead.

        Raises:
            PublishError: it does not have it, or did not say so within the timeout; in that one
                case the message may be there all the same.
        """
        if self._app.conf.task_always_eager:
            self._deliver_eagerly(event)
            return
        with _translated(f"{event.summary}: not published"), self.producer() as producer:
            self._send(producer, event)

    def publish_all(self, events: Iterable[Event]) -> None:
        """Return once the broker has every event's message; sent in one go where kombu can do that.

        Raises:
            PublishError: it does not have all of them, or did not say so in time; it may have
                some.
        """
        if self._app.conf.task_always_eager:
            raise PublishError("an eager app has no broker", reason="eager_delivery_failed")
        with (
            _translated("a batch was not published"),
            self.producer() as producer,
            _pipelined(producer),
        ):
            for event in events:
                self._send(producer, event)

    def _send(self, producer: Producer, event: Event) -> None:
        amqp, text = self._app.amqp, event.message_body
        since = event.enqueued_at
        headers: dict[str, Any] = {ENQUEUED_AT_HEADER: time.time() if since is None else since}
        # The body is JSON text already, so kombu passes it on as it is.
        body: object = text
        options: dict[str, Any] = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
        }
        if any(signal.receivers for signal in _SIGNALS):
            # Celery promises whoever listens the arguments, not their text.
            body, options = tuple(json.loads(text)), {"serializer": "json"}
        elif len(text) >= COMPRESS_BYTES:
            # Level 1: a batch shrinks to an eighth by it, and to a tenth by level 6, at twice
            # the time. The name is kombu's own for zlib, which every worker has.
            body, headers["compression"] = zlib.compress(text.encode(), 1), "application/x-gzip"
        message = amqp.as_task_v2(
            uuid(),
            DELIVER_TASK,
            argsrepr=event.summary,
            kwargsrepr="{}",
            ignore_result=True,
            create_sent_event=self._app.conf.task_send_sent_event,
        )
        amqp.send_task_message(
            producer,
            DELIVER_TASK,
            message._replace(body=body),
            queue=self._resolve_queue(),
            declare=self._declarations(producer),
            retry=False,
            headers=headers,
            **options,
        )

    @contextlib.contextmanager
    def producer(self) -> Iterator[Producer]:
        """A producer whose every network call is limited, for the length of the block.

        One that fails is closed and not used again.
        """
        fresh = False
        try:
            producer = self._idle.pop()
        except IndexError:
            fresh, producer = True, self._new_producer()
        try:
            if fresh:
                _keep_client(producer)
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
        args = (event.url, event.verb, event.wire_params)
        try:
            result = task.apply(args, {"headers": event.headers})
            error = None if result.successful() else result.result
        except DeliveryError as exc:  # task_eager_propagates
            error = exc
        # What was refused for good has been kept as a dead letter.
        if error is not None and not isinstance(error, PermanentDeliveryError):
            ours = isinstance(error, (DeliveryError, Reject))
            text = str(error) if ours else f"{event.summary}: {type(error).__name__}"
            raise PublishError(text, reason="eager_delivery_failed")


def _keep_client(producer: Producer) -> None:
    """Let kombu's channel make one redis-py client instead of one for each publish.

    That is a third of a publish. A client is a thin wrapper around the channel's pool, which it
    would share with the next one anyway; a kombu without this method goes on as before.
    """
    if _is_redis(producer.connection):
        make = getattr(producer.channel, "_create_client", None)
        if make is not None:
            producer.channel._create_client = functools.cache(make)  # noqa: SLF001


def _pipelined(producer: Producer) -> contextlib.AbstractContextManager[Any]:
    """One round trip for many messages, with kombu 5.7 and a transport that can."""
    if getattr(producer, "supports_batch_publish", False):
        return cast("contextlib.AbstractContextManager[Any]", producer.batch())
    return contextlib.nullcontext()


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except PublishError:
        raise
    except Exception as exc:  # noqa: BLE001 - translated
        # Not chained: whatever kombu or redis-py says may quote the message or the URL.
        raise PublishError(f"{what} ({type(exc).__name__})", reason=reason_of(exc)) from None


def _is_redis(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "redis")


def _close(producer: Producer) -> None:
    with contextlib.suppress(Exception):
        producer.connection.release()
