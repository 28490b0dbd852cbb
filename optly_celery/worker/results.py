"""What a result backend is given of a deliver task: how it ended, and nothing of its event.

The settings decide whether there is a result at all. Celery makes it of the request, arguments and
payload included, and of an exception with its text and traceback.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, cast

from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)

from ..errors import OptlyCeleryError
from ..event.summary import is_summary
from .message import summary

# Celery's own whose text is a signal, a limit or a word. Not so `MaxRetriesExceededError`, which
# quotes the arguments.
_PLAIN = (SoftTimeLimitExceeded, TaskRevokedError, Terminated, TimeLimitExceeded, WorkerLostError)
_KNOWN = frozenset({"reason", "status", "retry_after_s", "retry_in_s"})


class _Discreet:
    """In front of a backend's class; all that Celery stores about a task goes through here."""

    def store_result(
        self, task_id: Any, result: Any, state: Any, traceback: Any = None, request: Any = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        if isinstance(result, BaseException):
            result = shown_error(result)
        # It ends with the text of its error, after those of the errors that led to it.
        traceback = None
        return super().store_result(  # type: ignore[misc]
            task_id, result, state, traceback=traceback, request=shown_request(request), **options
        )

    def __reduce__(self, *args: Any, **kwargs: Any) -> Any:
        # A result that apply_async returned is pickled with its backend: as the backend's own.
        make, (_, *rest) = cast("tuple[Any, Any]", super().__reduce__(*args, **kwargs))
        return make, (type(self).__bases__[1], *rest)


def discreet(backend: Any) -> Any:
    """The same backend, connections and all, for a deliver task's results."""
    kind: Any = type(backend)
    if issubclass(kind, _Discreet):
        return backend
    # Made for each use, which takes a microsecond: Celery before 5.7 has a backend for
    # each thread.
    made: Any = object.__new__(_discreet_class(kind))
    made.__dict__ = backend.__dict__
    return made


@functools.lru_cache(maxsize=16)
def _discreet_class(kind: Any) -> Any:
    return type(f"Discreet{kind.__name__}", (_Discreet, kind), {})


def shown_request(request: Any) -> Any:
    """A copy of Celery's request with a summary in place of the payload; None stays None."""
    if request is None:
        return None
    found = vars(request)
    text = found.get("argsrepr")
    if not is_summary(text):
        text = summary((found.get("args"), found.get("kwargs") or {}, None))
    shown = copy.copy(request)
    vars(shown).update(
        args=[text], kwargs={}, argsrepr=text, kwargsrepr="{}",
        # What a sender may write into these is not ours to show.
        headers=None, stamps=None, stamped_headers=None,
    )  # fmt: skip
    return shown


def shown_error(error: BaseException) -> BaseException:
    """What may be stored of an error: of ours what it counts by, of others the name alone."""
    kind: Any = type(error)
    if issubclass(kind, _PLAIN):
        return error
    if not issubclass(kind, OptlyCeleryError):
        return OptlyCeleryError(f"unexpected {kind.__name__}")
    made: OptlyCeleryError = kind.__new__(kind, *error.args)
    vars(made).update({k: v for k, v in vars(error).items() if k in _KNOWN})
    return made
