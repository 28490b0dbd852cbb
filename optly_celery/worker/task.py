"""How a worker holds a deliver task's message: nothing leaves the broker before its event is safe.

Celery's own answer to a retry that cannot be published is to reject the message, which on Redis
deletes it, and to a task that ends in any error is to ack it. Here a message is acked when its
event was delivered, published again or kept; otherwise it stays unacked, and goes back to the
queue after a while.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery.exceptions import Reject
from celery.worker.control import inspect_command

from ..broker_errors import in_words
from ..errors import SettingsError, TransientDeliveryError
from ..event.summary import is_summary
from ..names import ENQUEUED_AT_HEADER, PARTS_HEADER, PAUSES_COMMAND, REFUSED_HEADER
from ..runtime.process import runtime_of
from ..runtime.runtime import Runtime
from .borrowed import REQUEST, missing
from .loop import Loop
from .message import event_of, first_at, is_due, url_in
from .options import AnnotatedTask
from .ours import consumes
from .parts import Parts, known_parts, parts_of
from .request import PAUSED, DeliverRequest, DiscreetRequest, GiveBack
from .results import discreet

logger = logging.getLogger(__name__)

# A connection to the broker takes half a megabyte, and in an outage all threads fail at once. It
# waits as Celery's own connection pool does.
_MOST_PUBLISHING = 8
_WRONG_S = 30.0  # before what wrong settings keep from being handled is given back


class DeliverTask(AnnotatedTask):
    """Base of the deliver task: what a retry carries, and what a person sees of it."""

    abstract = True
    Request: type = DeliverRequest

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._publishing = threading.BoundedSemaphore(_MOST_PUBLISHING)

    @property
    def runtime(self) -> Runtime:
        """What this process holds for this task's app."""
        return runtime_of(self.app)

    @property
    def backend(self) -> Any:
        """Where Celery stores this task's results, if it does: without what is in the event."""
        return discreet(super().backend)

    @backend.setter
    def backend(self, value: Any) -> None:
        AnnotatedTask.backend.fset(self, value)

    @property
    def parts(self) -> Parts:
        """Those of the worker that this task runs in; for what runs in its main process."""
        assert self._parts is not None  # noqa: S101 - a request comes after `start_strategy`
        return self._parts

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Celery calls this whenever the worker connects."""
        self._parts = known_parts(consumer)
        if self._parts is None and consumes(consumer.app):
            self._parts = parts_of(consumer)
        if REQUEST in missing():
            self.Request = DiscreetRequest
        handle = super().start_strategy(app, consumer, **kwargs)
        # What was put off comes back by the way on which Celery hands a request to the pool.
        self.run_request = consumer.on_task_request

        def receive(message: Any, body: Any, *args: Any, **options: Any) -> Any:
            if self._parts is None and not self._has_parts(consumer, message):
                return None
            if body is None:
                due = is_due(message.headers.get("eta"))
                if not self.parts.pausing.receives(message, url_in(message), is_due=due):
                    return None
            return handle(message, body, *args, **options)

        return receive

    def _has_parts(self, consumer: Any, message: Any) -> bool:
        """Make them for the first message: a worker of other queues may never get one."""
        try:
            self._parts = parts_of(consumer)
        except SettingsError as exc:
            logger.critical("a deliver task came by another queue, and waits: %s", exc)
            loop = Loop(consumer)
            loop.later(_WRONG_S, functools.partial(loop.give_back, message))
            return False
        return True

    def give_back_if_paused(self, url: object) -> None:
        """Not to post what waited in the pool while a pause began.

        Raises:
            GiveBack: at once, and it costs no attempt.
        """
        if self._parts is not None and self._parts.pausing.stops(str(self.request.id), url):
            raise GiveBack(PAUSED, 0.0)

    def note_return(self) -> None:
        """The event was delivered: only this, and no kill, ends as a success."""
        if self._parts is not None:
            self._parts.note_return(str(self.request.id))

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
        runtime = self.runtime
        is_retry = options.get("task_id") == self.request.id
        # Or every retry of a batch would read it for this line.
        shown = self.known_summary() if is_retry else None
        if shown is None:
            shown = event_of(*(args or ()), **(kwargs or {})).summary
        options["argsrepr"], options["kwargsrepr"] = shown, "{}"
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
            GiveBack: the broker did not take the retry.
        """
        if isinstance(exc, TransientDeliveryError) and exc.retry_in_s is not None:
            countdown = exc.retry_in_s
        if self.request.is_eager:
            raise exc  # in line there is no waiting, so no second attempt
        options["headers"] = {
            ENQUEUED_AT_HEADER: self.enqueued_at(),
            REFUSED_HEADER: self.request.get(REFUSED_HEADER, 0),
        }
        if parts := self.request.get(PARTS_HEADER):
            options["headers"][PARTS_HEADER] = parts
        if isinstance(exc, TransientDeliveryError) and not exc.spends:
            self.request.update(retries=self.request.retries - 1)  # Celery adds one
        try:
            with self._publishing:
                return super().retry(*args, exc=exc, countdown=countdown, **options)
        except Reject as reject:
            why = in_words(reject.reason) if isinstance(reject.reason, Exception) else "refused"
            raise GiveBack(f"retry not published: the broker {why}", countdown or 0.0) from None

    def known_summary(self) -> str | None:
        """The summary that the message of the current request brings along, where it is one."""
        shown = self.request.get("argsrepr")
        return shown if is_summary(shown) else None

    def enqueued_at(self) -> float:
        """`first_at` of the current request."""
        return float(first_at(self.request))


@inspect_command(name=PAUSES_COMMAND)  # type: ignore[untyped-decorator, unused-ignore]
def _pauses(state: Any) -> list[dict[str, Any]]:
    """Endpoints that this worker has paused, and how many events it has not come back from."""
    found = known_parts(state.consumer)
    return [*found.pausing.report(), {"late": found.late()}] if found else []
