"""Poison: messages that cannot be read, and events that kill their workers, end as dead letters.

Celery logs the former with their content and deletes them, and runs the latter again and again.
Here either is kept with a reason, for a person to look at.
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
from celery.worker import state

from ..errors import DeadLetterError
from ..event.event import Event
from ..names import ENQUEUED_AT_HEADER, SWEPT_HEADER
from ..runtime.process import runtime_of
from .message import event_of

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""An event that was being delivered when so many workers, or children of one, died is poison."""

_LOOK_AGAIN_S = 0.05
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


class Suspects:
    """Has the messages that a dead worker left delivered one at a time, and counts the deaths.

    A worker dies with many messages in its hands, and one of them may be the reason. One at a
    time, with a note in Redis beforehand, shows which: so the others get delivered.
    """

    def __init__(self) -> None:
        self._current: Any = None
        self._noted = 0

    def admit(self, request: Any, resume: Callable[[], None]) -> bool:
        """Whether a request may run now; if not, it was kept, or ``resume`` is called later."""
        if SWEPT_HEADER not in request.request_dict:
            return True
        if self._current is request:
            return True
        if self._current is not None and self._current in state.reserved_requests:
            request.task.call_later(_LOOK_AGAIN_S, resume)
            return False
        # Before the note is made: other greenlets come here while that waits for Redis.
        self._current, self._noted = request, 0
        # The first death was not noted: nobody was suspected yet.
        self._noted = self.strike(request, least=1)
        if self._noted > MOST_DEATHS:
            self._current = None
            self.keep(request, "killed_worker")
            return False
        return True

    def deaths(self, request: Any) -> int:
        """How many died of this request by now, a child of the pool having died a moment ago."""
        return self._noted if self._current is request else self.strike(request)

    def strike(self, request: Any, *, least: int = 0) -> int:
        """Note what may be this request's fault, and how often; 0 when that cannot be noted."""
        try:
            return runtime_of(request.task.app).dead_letters.strike(request.id, least=least)
        except DeadLetterError as exc:
            logger.warning("%s: its worker's death could not be noted: %s", request.id, exc)
            return 0

    def forgive(self, request: Any) -> None:
        """What was suspected has lived through an attempt."""
        if self._current is not request:
            return
        self._current = None
        try:
            runtime_of(request.task.app).dead_letters.forgive(request.id)
        except DeadLetterError as exc:
            logger.info("%s: its note stays until it expires: %s", request.id, exc)

    def keep(self, request: Any, reason: str) -> None:
        """Keep a request's event, or its message where that is none, and ack; else hand it back."""
        try:
            keep_request(request, reason)
        except DeadLetterError as exc:
            request.hold(str(exc), request.task.hand_back_s)
        else:
            request.end_as_kept(reason)


def keep_request(request: Any, reason: str) -> None:
    """Keep the event that a request carries, or its message where that is no event.

    Raises:
        DeadLetterError: the store did not take it.
    """
    message = request.message
    try:
        args, kwargs, _ = message.payload
        event = event_of(*args, **kwargs)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is kept as it is
        keep_message(request.task.app, message, reason)
        return
    first_at = message.headers.get(ENQUEUED_AT_HEADER)
    runtime_of(request.task.app).dead_letters.keep(
        event,
        task_id=request.id,
        reason=reason,
        error=reason,
        status=None,
        attempts=int(message.headers.get("retries") or 0) + 1,
        first_at=first_at if isinstance(first_at, (int, float)) else time.time(),
    )
