"""Every error this package raises, in one tree.

::

    OptlyCeleryError
    ├── SettingsError            a setting is unknown or out of range
    ├── NotAnEventError          what was dispatched is no event
    ├── PublishError             the broker did not take a message
    ├── OutboxError              the local file did not take or give an event
    ├── DeliveryError            one attempt did not deliver
    │   ├── TransientDeliveryError   worth another attempt
    │   └── PermanentDeliveryError   not worth another attempt
    └── DeadLetterError          the dead letter store did not answer
        └── NoSuchDeadLetterError    no dead letter has this id

No message, argument or ``repr`` here holds event data: Celery shows them in its
log and in Flower. A ``reason`` is a short snake_case word, made for counting.
"""

from __future__ import annotations

import copyreg


class OptlyCeleryError(Exception):
    """Root of the tree."""

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are not in ``args``, which is all that pickle would replay;
        # a prefork worker pickles what its children raise.
        return copyreg.__newobj__, (type(self), *self.args), dict(self.__dict__)  # type: ignore[attr-defined]


class _WithReason:
    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)  # type: ignore[call-arg]  # a mixin
        self.reason = reason


class SettingsError(OptlyCeleryError):
    """A setting is unknown, of the wrong type or out of range."""


class NotAnEventError(_WithReason, OptlyCeleryError):
    """What was dispatched cannot become an event.

    ``reason`` is one of ``no_url``, ``bad_verb``, ``bad_headers``,
    ``params_not_an_object``, ``params_not_json`` and ``too_large``; in the SDK's processor, of
    an event tag, ``not_finite``, ``cycle``, ``too_deep``, ``too_large``, ``bytes_not_text``,
    ``key_twice`` and ``no_json_form``, and of what is no event of the SDK, ``no_user_event`` and
    ``no_log_event``.
    """


class PublishError(_WithReason, OptlyCeleryError):
    """The broker did not take a message within the publish timeout.

    ``reason`` is one of ``broker_unreachable``, ``broker_timeout``,
    ``broker_out_of_memory``, ``broker_read_only``, ``broker_refused``, ``broker_error`` and, in
    an app with ``task_always_eager``, ``eager_delivery_failed``.
    """


class OutboxError(_WithReason, OptlyCeleryError):
    """The outbox file did not take or give an event; what it holds stays where it is.

    ``reason`` is one of ``outbox_full``, ``outbox_disk_full``, ``outbox_read_only``,
    ``outbox_damaged``, ``outbox_foreign``, ``outbox_gone``, ``outbox_closed`` and ``outbox_io``.
    """


class DeliveryError(_WithReason, OptlyCeleryError):
    """One attempt did not deliver; ``status`` is the HTTP status, if there was an answer."""

    answer: str | None = None

    def __init__(self, message: str, *, reason: str, status: int | None = None) -> None:
        super().__init__(message, reason=reason)
        self.status = status


class TransientDeliveryError(DeliveryError):
    """Worth another attempt.

    ``retry_after_s`` is what the endpoint asked for, in seconds from now; ``retry_in_s`` is what
    the retry policy decided, and is set only once it has. Where it does not ``spend`` an attempt
    nothing has failed: the worker did not get any further.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        retry_in_s: float | None = None,
        spends: bool = True,
    ) -> None:
        super().__init__(message, reason=reason, status=status)
        self.retry_after_s = retry_after_s
        self.retry_in_s = retry_in_s
        self.spends = spends


class PermanentDeliveryError(DeliveryError):
    """No further attempt would help.

    ``answer`` is what the endpoint said to it, cut to 2 kB: its words may quote the event, so
    they are in nothing that is logged, and do not leave the process with the error.
    """

    def __init__(
        self, message: str, *, reason: str, status: int | None = None, answer: str | None = None
    ) -> None:
        super().__init__(message, reason=reason, status=status)
        self.answer = answer

    def __reduce__(self) -> tuple[object, ...]:
        made, args, state = super().__reduce__()
        return made, args, {**state, "answer": None}  # type: ignore[dict-item]


class DeadLetterError(OptlyCeleryError):
    """The dead letter store did not take or give what it was asked to."""


class NoSuchDeadLetterError(DeadLetterError):
    """No dead letter has this id: replayed, purged or expired meanwhile."""


def forget_frames(error: BaseException | None) -> None:
    """Take the tracebacks off an error that has been dealt with, and off those that led to it.

    A frame that such an error was kept in is part of a circle, with all its callers; one of them
    is Celery's tracer, which holds billiard's copy of a traceback: half a megabyte. The garbage
    collector would find it, but hardly ever looks while a worker is paused, so that what all the
    threads failed with as the outage began would stay for as long as it lasts.
    """
    left, seen = [error], set[int]()
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [one.__cause__, one.__context__, getattr(one, "exc", None)]
