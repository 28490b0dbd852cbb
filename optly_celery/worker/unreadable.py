"""What cannot be read, or is no message at all, is kept as a dead letter: there a person looks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601, maybe_make_aware, timezone
from kombu.asynchronous.timer import to_timestamp

from ..broker_errors import in_words
from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from .loop import Loop
from .message import kept_item, kept_message
from .receive.receipt import ASIDE, AtomicReceipt

logger = logging.getLogger(__name__)

REASON = "not_a_message"

_AGAIN_S = 30.0  # a store that hangs is waited for in the loop, for 5 s
_EVERY_S = 5.0
_NEXT_S = 0.05  # to the next portion: the loop has other things to do as well
_PORTION = 10


class Unreadable:
    """Keeps what Celery would log, with its content, and delete, of the deliver queue alone."""

    def __init__(self, consumer: Any, dead: DeadLetters, *, queue: str) -> None:
        self._consumer = consumer
        self._dead = dead
        self._queue = queue

    def install(self) -> None:
        """Take the place of what the consumer does, before it receives anything."""
        self._keep_instead("on_decode_error", "undecodable", 0)
        self._keep_instead("on_invalid_task", "undecodable", 1)
        self._keep_instead("on_unknown_message", "unknown_message", 1)
        self._keep_instead("on_unknown_task", "unknown_task", 1)

    def _keep_instead(self, name: str, reason: str, position: int) -> None:
        celerys_way = getattr(self._consumer, name)

        def handle(*args: Any) -> None:
            message = args[position]
            info = getattr(message, "delivery_info", None) or {}
            if info.get("routing_key") == self._queue:
                self._end(message, reason)
            else:
                celerys_way(*args)

        setattr(self._consumer, name, handle)

    def _end(self, message: Any, reason: str) -> None:
        consumer = self._consumer
        try:
            self._dead.keep(kept_message(message, reason))
        except DeadLetterError as exc:
            logger.warning("a message that cannot be read stays in the queue: %s", exc)
            again = message.reject_log_error
            consumer.timer.call_after(_AGAIN_S, again, (logger, consumer.connection_errors, True))
        else:
            message.ack_log_error(logger, consumer.connection_errors)


class SetAside:
    """Empties the list of what was in the deliver queue and is no message.

    Receipt can only set it aside there, since it is a script in Redis, and the dead letters may be
    in another Redis. An older version of this package left it in that list.

    Each item leaves it after it was kept, and its letter's id follows from its content: a kill in
    between, or several workers at once, make one letter of it. One that cannot be kept stays, and
    the next look begins behind it.
    """

    def __init__(self, consumer: Any, loop: Loop, dead: DeadLetters, *, queue: str) -> None:
        self._consumer = consumer
        self._loop = loop
        self._dead = dead
        self._queue = queue
        self._list = ASIDE % queue
        self._entry: Any = None
        self._passed_over = 0
        self._not_before_s = 0.0
        self._told = ""
        self._looking = False

    def start(self) -> None:
        """Look now, every few seconds, and when the receipt says so; not where it is no Redis."""
        channel = self._consumer.task_consumer.channel
        if not hasattr(channel, "unacked_key"):
            return
        if isinstance(channel, AtomicReceipt):
            channel.on_set_aside = self._soon
        self._entry = self._consumer.timer.call_repeatedly(_EVERY_S, self._soon)
        self._soon()

    def stop(self) -> None:
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _soon(self) -> None:
        self._loop.soon(self._look)

    def _look(self) -> None:
        # Greenlets may come here while another waits for Redis.
        if self._looking or time.monotonic() < self._not_before_s or not self._is_wanted():
            return
        self._looking = True
        found: list[bytes] = []
        try:
            found = self._ask("LRANGE", -self._passed_over - _PORTION, -self._passed_over - 1)
            for item in reversed(found):
                self._dead.keep(kept_item(item, REASON))
                self._ask("LREM", -1, item)
            if found or not self._passed_over:
                self._told = ""
            else:  # only what was passed over is left: from the start again
                self._passed_over = 0
        except DeadLetterError as exc:
            self._pass_over(f"what is no message stays in {self._list}: {exc}")
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            self._pass_over(f"no look at what was set aside in {self._list} ({in_words(exc)})")
        finally:
            self._looking = False
        if len(found) == _PORTION:
            self._consumer.timer.call_after(_NEXT_S, self._soon)

    def _pass_over(self, why: str) -> None:
        self._passed_over += 1
        self._not_before_s = time.monotonic() + _AGAIN_S
        if why != self._told:  # once, not twice a minute for as long as it lasts
            logger.warning("%s", why)
        self._told = why

    def _is_wanted(self) -> bool:
        """Whether the connection stands, and nobody has told this worker to leave the queue."""
        consumer = self._consumer
        wanted = consumer.app.amqp.queues.consume_from
        return consumer.task_consumer is not None and self._queue in wanted

    def _ask(self, command: str, *args: object) -> Any:
        channel = self._consumer.task_consumer.channel
        with channel.conn_or_acquire() as client:
            # kombu's own client puts the prefix before the keys of some commands, not of these.
            return client.execute_command(command, channel.global_keyprefix + self._list, *args)


def only_readable(receive: Callable[..., Any]) -> Callable[..., Any]:
    """Make sure, before Celery receives a task message, that it can be run.

    Some of what makes it unreadable would end the worker's loop, or never come back from the pool.
    """

    def receive_if_readable(message: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            _check_readable(message)
        except Exception as exc:  # noqa: BLE001 - it is about any message at all
            raise InvalidTaskError(type(exc).__name__) from None
        return receive(message, *args, **kwargs)

    return receive_if_readable


def _check_readable(message: Any) -> None:
    """Raise anything when body or headers are not as Celery's message protocol has them."""
    payload = message.payload
    if isinstance(payload, dict) and "args" in payload:
        payload = payload["args"], payload.get("kwargs") or {}, None  # message protocol 1
    args, kwargs, embed = payload
    headers = message.headers if "id" in message.headers else message.payload
    retries, stamped = headers.get("retries"), dict.fromkeys(headers.get("stamped_headers") or ())
    hard, soft = headers.get("timelimit") or (None, None)
    if not (
        isinstance(args, (list, tuple))
        and all(map(_is_options, (kwargs, embed or {}, headers.get("stamps") or {}, stamped)))
        and all(limit is None or _is_number(limit) for limit in (hard, soft))
        and isinstance(headers["id"], str)
        and (retries is None or type(retries) is int)
    ):
        raise TypeError
    for when in filter(None, (headers.get("eta"), headers.get("expires"))):
        # As Celery does it, too late: it deletes what overflows.
        to_timestamp(timezone.to_system(maybe_make_aware(maybe_iso8601(when))))


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)
