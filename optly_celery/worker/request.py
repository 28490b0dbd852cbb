"""A deliver task's message in a worker's hands: acked when its event is safe, and not before."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import Any

from billiard import einfo
from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from ..errors import PermanentDeliveryError, forget_frames
from ..event.printable import printable
from ..event.summary import is_summary
from ..names import RECEIVED_AT_HEADER
from .message import summary, url_of
from .parts import Parts
from .pause.policy import Ended, how_ended
from .suspects import MOST_DEATHS

logger = logging.getLogger(__name__)

PAUSED = "paused"
_FROM_A_CHILD: Any = getattr(einfo, "ExceptionWithTraceback", ())

# Errors after which Celery itself does the right thing with the message: `Terminated` is a person's
# doing, after `MemoryError` the worker ends with the message unacked.
_CELERY_KNOWS = (
    PermanentDeliveryError, Retry, Ignore, Reject, WorkerLostError, Terminated, MemoryError,
)  # fmt: skip


class GiveBack(Reject):  # type: ignore[misc]
    """Not done, and not to be acked: give the message back to the broker in ``countdown`` s.

    None means in a while (`Parts.give_back_s`). Where `DeliverRequest` does not see it, Celery
    requeues at once.
    """

    def __init__(self, reason: str, countdown: float | None = None) -> None:
        super().__init__(reason, requeue=True)
        self.countdown = countdown


def give_backs_in_a_line(record: logging.LogRecord) -> bool:
    """A filter for what Celery logs of a task's end: give-backs come with a traceback there.

    As a pause begins there would be hundreds: `DeliverRequest.give_back` has a line for each.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, GiveBack):
        record.exc_info = None
        return str(error.reason) != PAUSED
    return True


class DiscreetRequest(Request):  # type: ignore[misc]
    """Celery's own, but for its arguments, of which log, monitors and remote control see a summary.

    It is the least that a worker must have of this package. ``url`` is where its event goes.
    """

    def __init__(
        self, message: Any, *, headers: Any = None, body: Any = None, decoded: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        payload = body if decoded else message.payload
        headers = message.headers if headers is None else headers
        shown = headers.get("argsrepr")
        if not is_summary(shown):  # another program's, or one sent by name
            shown = summary(payload)
        headers = {
            **headers, "argsrepr": shown, "kwargsrepr": "{}", RECEIVED_AT_HEADER: time.monotonic(),
        }  # fmt: skip
        super().__init__(message, headers=headers, body=body, decoded=decoded, **options)
        self.url = url_of(payload)

    def info(self, safe: bool = True) -> dict[str, Any]:  # noqa: ARG002 - nobody is shown the rest
        return super().info(safe=True)  # type: ignore[no-any-return]


class DeliverRequest(DiscreetRequest):
    """A request that is acked only when its event is safe, and until then keeps its message.

    Pools call back in whatever thread or process part they like; what touches the message here
    runs in the worker's own loop.
    """

    _held = False
    _told = False
    _is_decided = False
    """Whether its end is not a task's that returned: a failure, a revocation, a letter."""
    _is_cancelled = False

    def revoked(self) -> bool:
        """Also whether to leave it for now: Celery asks before it hands a request to the pool."""
        # A person's revocation acks, and says nothing about the endpoint.
        self._told = self._is_decided = True
        gone = False
        try:
            gone = super().revoked()
        finally:
            self._told = self._is_decided = gone
        if gone:
            return True
        if not self._parts.pausing.admits(self.id, self.url):
            self.give_back(PAUSED, 0.0)
            return True
        resume = functools.partial(self.task.run_request, self)
        return not self._parts.suspects.admit(self, resume)

    @property
    def _parts(self) -> Parts:
        return self.task.parts  # type: ignore[no-any-return]

    def acknowledge(self) -> None:
        """What Celery does of its own accord only after a success, or what it takes for one.

        A greenlet that was killed ends as a success without a result.
        """
        if not self._is_decided and not self._parts.has_returned(self.id):
            self.give_back("cancelled", 0.0)
            return
        self._ended(Ended.ANSWERED)
        super().acknowledge()
        # Afterwards: it lets the next suspect run, which may be the deadly one.
        self._parts.suspects.forgive(self)

    def end_as_kept(self, reason: str) -> None:
        """Ack what was kept without having run, and say so to monitors."""
        self._is_decided = True
        state.task_ready(self)
        self.send_event(
            "task-failed", exception=f"PermanentDeliveryError({reason!r})", traceback=""
        )
        self.acknowledge()

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Ack what `PermanentDeliveryError` says was kept; give back after any other error."""
        self._is_decided = True
        exc = exc_info.exception
        if isinstance(exc, _FROM_A_CHILD):  # as a prefork pool's child sends it
            exc = exc.exc
        try:
            self._settle_failure(exc, exc_info, send_failed_event, return_ok)
        finally:
            forget_frames(exc)

    def _settle_failure(self, exc: Any, exc_info: Any, send_failed_event: bool, ok: bool) -> None:
        error = exc.exc if isinstance(exc, Retry) else exc
        self._ended(how_ended(error), error)
        if isinstance(exc, GiveBack):
            self.give_back(str(exc.reason), exc.countdown)
        elif isinstance(exc, Terminated) and self._is_cancelled:  # by nobody's revocation
            self.give_back("cancelled", 0.0)
        elif isinstance(exc, WorkerLostError) and self._parts.suspects.deaths(self) >= MOST_DEATHS:
            self._parts.suspects.end(self, "killed_worker")
        elif isinstance(exc, _CELERY_KNOWS):
            super().on_failure(exc_info, send_failed_event, ok)
        elif self._parts.suspects.strike(self.id) >= MOST_DEATHS:
            self._parts.suspects.end(self, "unexpected_error")
        else:
            self.give_back(type(exc).__name__)

    def cancel(self, *args: Any, **kwargs: Any) -> None:
        """As Celery's, but a pool that cannot end a running task lets it end by itself.

        SIGQUIT cancels what runs. In a solo pool what the pool says to that would be raised in the
        middle of the POST.
        """
        with contextlib.suppress(NotImplementedError):
            super().cancel(*args, **kwargs)
            self._is_cancelled = bool(self.time_start)

    def terminate(self, *args: Any, **kwargs: Any) -> None:
        """As Celery's: a person has revoked what runs, and it is acked."""
        self._is_decided = True
        super().terminate(*args, **kwargs)

    def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's signature
        """Not that it has succeeded, where it was given back."""
        if self._held and type == "task-succeeded":
            return None
        return super().send_event(type, **fields)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A hard time limit hits in the middle of a POST. Celery 5.4 would delete the message."""
        if soft:
            super().on_timeout(soft, timeout)
        else:
            self._ended(Ended.NOT_TRIED)
            self.give_back(f"time limit of {timeout:g} s")

    def _ended(self, how: Ended, error: Any = None) -> None:
        if not self._told:
            self._told = True
            self._parts.pausing.ended(self.id, self.url, how, error)

    def give_back(self, reason: str, countdown: float | None = None) -> None:
        """Leave the message unacked, and give it back to the broker in so many seconds."""
        if countdown is None:
            countdown = self._parts.give_back_s
        if self._held:  # a prefork pool reports a time limit twice
            return
        self._held = True
        self._parts.suspects.forgive(self)
        state.task_ready(self)
        self.send_event("task-retried", exception=f"given back: {reason}", traceback="")
        level = logging.INFO if reason == PAUSED else logging.WARNING  # there may be hundreds
        shown = printable(self.id)
        logger.log(level, "%s is given back in %.1f s: %s", shown, countdown, reason)
        loop = self._parts.loop
        loop.later(countdown, functools.partial(loop.give_back, self.message, shown))
