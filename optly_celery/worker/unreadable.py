"""Messages that cannot be read are kept as dead letters, with a reason, for a person to look at.

Celery logs them with their content and deletes them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601, maybe_make_aware, timezone
from kombu.asynchronous.timer import to_timestamp

from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from .message import kept_message

logger = logging.getLogger(__name__)

_KEEP_AGAIN_S = 30.0


class Unreadable:
    """Keeps what Celery would log and delete, of the deliver queue alone."""

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
            consumer.timer.call_after(
                _KEEP_AGAIN_S, again, (logger, consumer.connection_errors, True)
            )
        else:
            message.ack_log_error(logger, consumer.connection_errors)


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
