"""Messages that cannot be read are kept as dead letters, with a reason, for a person to look at.

Celery logs them with their content and deletes them.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.exceptions import InvalidTaskError

from ..errors import DeadLetterError
from ..event.event import Event
from ..names import ENQUEUED_AT_HEADER
from ..runtime.process import runtime_of

logger = logging.getLogger(__name__)

_KEEP_AGAIN_S = 30.0


class Guard(bootsteps.Step):  # type: ignore[misc]
    """Consumer step that keeps what Celery would log and delete, of the deliver queue alone."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._consumer = consumer
        queue = runtime_of(consumer.app).settings.queue

        def keep_instead(name: str, reason: str, position: int) -> None:
            celerys_way = getattr(consumer, name)

            def handle(*args: Any) -> None:
                message = args[position]
                info = getattr(message, "delivery_info", None) or {}
                if info.get("routing_key") == queue:
                    self._keep(message, reason)
                else:
                    celerys_way(*args)

            setattr(consumer, name, handle)

        keep_instead("on_decode_error", "undecodable", 0)
        keep_instead("on_invalid_task", "undecodable", 1)
        keep_instead("on_unknown_message", "unknown_message", 1)
        keep_instead("on_unknown_task", "unknown_task", 1)

    def _keep(self, message: Any, reason: str) -> None:
        consumer = self._consumer
        try:
            keep_message(consumer.app, message, reason)
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
    if not (isinstance(args, (list, tuple)) and _is_options(kwargs) and _is_options(embed or {})):
        raise TypeError("arguments")
    headers = message.headers if "id" in message.headers else message.payload
    hard, soft = headers.get("timelimit") or (None, None)
    _ = (hard or 0) + (soft or 0) + (headers.get("retries") or 0)
    if not isinstance(headers["id"], str):
        raise TypeError("id")


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def keep_message(app: Any, message: Any, reason: str) -> None:
    """Keep a message as it is; what is shown of it is its size.

    Raises:
        DeadLetterError: the store did not take it.
    """
    body = message.body
    whole = {
        "body": _text(body) if isinstance(body, bytes) else body,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "headers": message.headers,
        "properties": message.properties,
    }
    headers = message.headers if isinstance(message.headers, dict) else {}
    first_at, retries = headers.get(ENQUEUED_AT_HEADER), headers.get("retries")
    runtime_of(app).dead_letters.keep(
        Event.raw(None, {"message": json.loads(json.dumps(whole, default=repr))}, None, None),
        task_id=str(headers.get("id") or message.delivery_tag),
        reason=reason,
        error=reason,
        status=None,
        attempts=retries if isinstance(retries, int) else 0,
        first_at=first_at if isinstance(first_at, (int, float)) else time.time(),
    )


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()
