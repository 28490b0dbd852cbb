"""How a worker holds a deliver task's message: nothing leaves the broker before its event is safe.

Celery's own answer to a retry that cannot be published is to reject the message, which on Redis
deletes it, and to a task that ends in any error is to ack it. Here a message is acked when its
event was delivered, published again or kept; otherwise it stays unacked, and goes back to the
queue after a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Task
from celery.exceptions import Reject
from celery.worker.control import inspect_command

from ..broker_errors import in_words
from ..errors import SettingsError, TransientDeliveryError
from ..names import ENQUEUED_AT_HEADER, PAUSES_COMMAND, REFUSED_HEADER
from ..runtime.process import runtime_of
from .message import event_of, is_due, url_in
from .pause.step import Pausing, pausing_of
from .request import PAUSED, DeliverRequest, HandBack
from .unreadable import only_readable

logger = logging.getLogger(__name__)

# A connection to the broker takes half a megabyte, and in an outage all threads fail at once. It
# waits as Celery's own connection pool does.
_PUBLISHING = threading.BoundedSemaphore(8)
_HAND_BACK_S = 30.0


class DeliverTask(Task):  # type: ignore[misc]
    """Base of the deliver task: what a retry carries, and what a person sees of it."""

    abstract = True
    Request = DeliverRequest
    _consumer: Any = None

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Celery calls this whenever the worker connects: remember whose loop it is."""
        type(self)._consumer = consumer  # noqa: SLF001 - its own class
        handle = only_readable(super().start_strategy(app, consumer, **kwargs))

        def receive(message: Any, body: Any, *args: Any, **options: Any) -> Any:
            pausing = self.pausing
            if pausing is not None and body is None:
                due = is_due(message.headers.get("eta"))
                if not pausing.receives(message, url_in(message), is_due=due):
                    return None
            return handle(message, body, *args, **options)

        return receive

    def run_request(self, request: Any) -> None:
        """Have the worker run a request that was put off."""
        self._consumer.on_task_request(request)

    @property
    def pausing(self) -> Pausing | None:
        """What this worker knows of endpoints that are away; None outside of a worker."""
        return pausing_of(self._consumer)

    def give_back_if_paused(self, url: object) -> None:
        """Not to post what waited in the pool while a pause began.

        Raises:
            HandBack: at once, and it costs no attempt.
        """
        pausing = self.pausing
        if pausing is not None and pausing.stops(str(self.request.id), url):
            raise HandBack(PAUSED, 0.0)

    def call_later(self, seconds: float, callback: Any) -> None:
        """Call back from the worker's own loop; may be called from any thread of the pool."""
        if getattr(self._consumer.pool, "is_green", False):
            # Its loop looks up every two seconds only, and greenlets do not interrupt each other.
            self._consumer.timer.call_after(seconds, callback)
            return
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
        event = event_of(*(args or ()), **(kwargs or {}))
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
            with _PUBLISHING:
                return super().retry(*args, exc=exc, countdown=countdown, **options)
        except Reject as reject:
            why = in_words(reject.reason) if isinstance(reject.reason, Exception) else "refused"
            raise HandBack(f"retry not published: the broker {why}", countdown or 0.0) from None

    def enqueued_at(self) -> float:
        """When the event of the current request was first enqueued, in seconds since the epoch.

        A message of another producer may not say: then it is as old as this attempt.
        """
        found = self.request.get(ENQUEUED_AT_HEADER)
        return float(found) if isinstance(found, (int, float)) else time.time()


@inspect_command(name=PAUSES_COMMAND)  # type: ignore[untyped-decorator, unused-ignore]
def _pauses(state: Any) -> list[dict[str, Any]]:
    """Endpoints that this worker has paused."""
    found = pausing_of(state.consumer)
    return found.facts() if found else []
