"""How a worker holds a deliver task's message: nothing leaves the broker before its event is safe.

Celery's own answer to a retry that cannot be published is to reject the message, which on Redis
deletes it. Here the message stays unacked, and goes back to the queue when the backoff is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.state import task_ready

from .errors import TransientDeliveryError
from .event import Event
from .names import ENQUEUED_AT_HEADER, REFUSED_HEADER
from .runtime import runtime_of

logger = logging.getLogger(__name__)

_HAND_BACK_AGAIN_S = 5.0


class HandBack(Reject):  # type: ignore[misc]
    """Not done, and not to be acked: give the message back to the broker in ``countdown`` s.

    Where `DeliverRequest` does not see it, Celery requeues at once.
    """

    def __init__(self, reason: str, countdown: float) -> None:
        super().__init__(reason, requeue=True)
        self.countdown = countdown


class DeliverRequest(Request):  # type: ignore[misc]
    """A request that can keep its message unacked for a while."""

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if not isinstance(exc, HandBack):
            return super().on_failure(exc_info, send_failed_event, return_ok)
        task_ready(self)
        self.send_event("task-retried", exception=repr(exc), traceback="")
        logger.warning("%s is handed back in %.1f s: %s", self.id, exc.countdown, exc.reason)
        self.task.call_later(exc.countdown, self._hand_back)

    def _hand_back(self) -> None:
        try:
            self._message.reject(requeue=True)
        except Exception as exc:
            # Whatever the broker's trouble is, the message is still unacked there. It comes back
            # by this, by the end of this worker, or by the visibility timeout.
            logger.warning("%s could not be handed back yet (%s)", self.id, type(exc).__name__)
            self.task.call_later(_HAND_BACK_AGAIN_S, self._hand_back)


class DeliverTask(Task):  # type: ignore[misc]
    """Base of the deliver task: what a retry carries, and what a person sees of it."""

    abstract = True
    Request = DeliverRequest
    _timer: Any = None

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Celery calls this whenever the worker connects: remember its current timer."""
        type(self)._timer = consumer.timer
        return super().start_strategy(app, consumer, **kwargs)

    def call_later(self, seconds: float, callback: Any) -> None:
        """Call back from the worker's own loop."""
        self._timer.call_after(seconds, callback)

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
            raise HandBack(f"retry not published: {_name(reject)}", countdown or 0.0) from None

    def enqueued_at(self) -> float:
        """When the event of the current request was first enqueued, in seconds since the epoch.

        A message of another producer may not say: then it is as old as this attempt.
        """
        found = self.request.get(ENQUEUED_AT_HEADER)
        return float(found) if isinstance(found, (int, float)) else time.time()


def _event_of(
    url: object, verb: object, params: object, headers: object = None, **_: object
) -> Event:
    return Event.of(url, params, verb, headers)


def _name(reject: Reject) -> str:
    return type(reject.reason).__name__ if isinstance(reject.reason, BaseException) else "rejected"
