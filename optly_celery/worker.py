"""How a worker holds a deliver task's message: nothing leaves the broker before its event is safe.

Celery's own answer to a retry that cannot be published is to reject the message, which on Redis
deletes it, and to a task that ends in any error is to ack it. Here a message is acked when its
event was delivered, published again or kept; otherwise it stays unacked, and goes back to the
queue after a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Task
from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError
from celery.worker.request import Request
from celery.worker.state import task_ready

from .errors import (
    NotAnEventError,
    PermanentDeliveryError,
    SettingsError,
    TransientDeliveryError,
)
from .event import Event
from .names import ENQUEUED_AT_HEADER, REFUSED_HEADER
from .runtime import runtime_of
from .trouble import trouble

logger = logging.getLogger(__name__)

_HAND_BACK_S = 30.0
_HAND_BACK_AGAIN_S = 5.0


class HandBack(Reject):  # type: ignore[misc]
    """Not done, and not to be acked: give the message back to the broker in ``countdown`` s.

    Where `DeliverRequest` does not see it, Celery requeues at once.
    """

    def __init__(self, reason: str, countdown: float) -> None:
        super().__init__(reason, requeue=True)
        self.countdown = countdown


class DeliverRequest(Request):  # type: ignore[misc]
    """A request that is acked only when its event is safe, and until then keeps its message.

    Pools call back in whatever thread or process part they like; what touches the message here
    runs in the worker's own loop.
    """

    _held = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if ENQUEUED_AT_HEADER not in self._request_dict:
            # Another program's message, or one sent by name: Celery would show all of the event.
            shown = {"argsrepr": _summary(self._payload), "kwargsrepr": "{}"}
            self._request_dict.update(shown)
            self._argsrepr, self._kwargsrepr = shown["argsrepr"], shown["kwargsrepr"]

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Ack what `PermanentDeliveryError` says was kept; hand back after any other error."""
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):  # as a prefork pool's child sends it
            exc = exc.exc
        if isinstance(exc, HandBack):
            self._hold(str(exc.reason), exc.countdown)
        elif isinstance(exc, _CELERY_KNOWS):
            super().on_failure(exc_info, send_failed_event, return_ok)
        else:
            self._hold(type(exc).__name__, self.task.hand_back_s)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A hard time limit hits in the middle of a POST. Celery 5.4 would delete the message."""
        if soft:
            super().on_timeout(soft, timeout)
        else:
            self._hold(f"time limit of {timeout:g} s", self.task.hand_back_s)

    def _hold(self, reason: str, countdown: float) -> None:
        if self._held:  # a prefork pool reports a time limit twice
            return
        self._held = True
        task_ready(self)
        self.send_event("task-retried", exception=f"handed back: {reason}", traceback="")
        logger.warning("%s is handed back in %.1f s: %s", self.id, countdown, reason)
        self.task.call_later(countdown, self._hand_back)

    def _hand_back(self) -> None:
        try:
            self._message.reject(requeue=True)
        except Exception as exc:  # noqa: BLE001
            # Whatever the broker's trouble is, the message is still unacked there. It comes back
            # by this, by the end of this worker, or by the visibility timeout.
            logger.warning("%s could not be handed back yet (%s)", self.id, type(exc).__name__)
            self.task.call_later(_HAND_BACK_AGAIN_S, self._hand_back)


class DeliverTask(Task):  # type: ignore[misc]
    """Base of the deliver task: what a retry carries, and what a person sees of it."""

    abstract = True
    Request = DeliverRequest
    _consumer: Any = None

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Celery calls this whenever the worker connects: remember whose loop it is."""
        type(self)._consumer = consumer  # noqa: SLF001 - its own class
        return super().start_strategy(app, consumer, **kwargs)

    def call_later(self, seconds: float, callback: Any) -> None:
        """Call back from the worker's own loop; may be called from any thread of the pool."""
        # Not the timer itself: the loop's is a heap without a lock.
        self._consumer.call_soon(self._consumer.timer.call_after, seconds, callback)

    @property
    def hand_back_s(self) -> float:
        """How long to wait where the retry policy has nothing to say.

        Not longer than a backoff, so that the visibility timeout is not reached.
        """
        try:
            return min(_HAND_BACK_S, runtime_of(self.app).settings.retry_backoff_max)
        except SettingsError:
            return _HAND_BACK_S

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's, within ``optly_publish_timeout`` and with a summary instead of the payload.

        Raises:
            NotAnEventError: the arguments are no event.
        """
        event = _event_of(*(args or ()), **(kwargs or {}))
        runtime = runtime_of(self.app)
        options["argsrepr"], options["kwargsrepr"] = event.summary, "{}"
        if not {"queue", "exchange", "routing_key"} & options.keys():
            options["queue"] = runtime.settings.queue
        options["headers"] = {ENQUEUED_AT_HEADER: time.time()} | (options.get("headers") or {})
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, **options)
        with runtime.publisher.producer() as producer:
            options |= {"producer": producer, "retry": False}
            return super().apply_async(args, kwargs, **options)

    def retry(self, *args: Any, exc: Any = None, countdown: Any = None, **options: Any) -> Any:
        """As Celery's, with the policy's own wait, and without losing what cannot be published.

        Celery's ``autoretry_for`` calls this with a countdown of its own making; before 5.6 that
        was kept in a dictionary that all threads of a pool share.

        Raises:
            HandBack: the broker did not take the retry.
        """
        if isinstance(exc, TransientDeliveryError) and exc.retry_in_s is not None:
            countdown = exc.retry_in_s
        if self.request.is_eager:
            raise exc  # in line there is no waiting, so no second attempt
        options["headers"] = {
            ENQUEUED_AT_HEADER: self.enqueued_at(),
            REFUSED_HEADER: self.request.get(REFUSED_HEADER, 0),
        }
        try:
            return super().retry(*args, exc=exc, countdown=countdown, **options)
        except Reject as reject:
            why = trouble(reject.reason) if isinstance(reject.reason, Exception) else "refused"
            raise HandBack(f"retry not published: the broker {why}", countdown or 0.0) from None

    def enqueued_at(self) -> float:
        """When the event of the current request was first enqueued, in seconds since the epoch.

        A message of another producer may not say: then it is as old as this attempt.
        """
        found = self.request.get(ENQUEUED_AT_HEADER)
        return float(found) if isinstance(found, (int, float)) else time.time()


# Errors after which Celery itself does the right thing with the message: `Terminated` is a person's
# doing, after `MemoryError` the worker ends with the message unacked.
_CELERY_KNOWS = (
    PermanentDeliveryError, Retry, Ignore, Reject, WorkerLostError, Terminated, MemoryError,
)  # fmt: skip


def _event_of(url: object, verb: object, params: object, headers: object = None) -> Event:
    return Event.of(url, params, verb, headers)


def _summary(payload: Any) -> str:
    """What may be shown of a message's arguments, whatever they are."""
    try:
        args, kwargs, _ = payload
        return _event_of(*args, **kwargs).summary
    except (NotAnEventError, TypeError, ValueError):
        return "no event"
