"""What is wrong with a server, as a reason to count by and in words that hold no secret.

Exceptions of kombu, redis-py and amqp are told apart by the names of their classes, so that this
needs none of the three. Their own texts may quote a URL with its password, or what was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

_KNOWN = {
    "AuthenticationError": ("broker_refused", "refused the user name or password"),
    "AccessRefused": ("broker_refused", "refused the user name or password"),
    "AuthorizationError": ("broker_refused", "does not let this user do that"),
    "NoPermissionError": ("broker_refused", "does not let this user do that"),
    "BusyLoadingError": ("broker_unreachable", "is still loading its data"),
    "OutOfMemoryError": ("broker_out_of_memory", "is out of memory"),
    "ReadOnlyError": ("broker_read_only", "is read-only"),
    "InvalidResponse": ("broker_error", "does not answer as a broker does"),
    "ResponseError": ("broker_refused", "refused the command"),
    "TimeoutError": ("broker_timeout", "did not answer in time"),
    "ConnectionError": ("broker_unreachable", "cannot be reached"),
    "OSError": ("broker_unreachable", "cannot be reached"),
}


def reason_of(exc: BaseException) -> str:
    """The ``reason`` of a `PublishError`: ``broker_timeout``."""
    return next((_KNOWN[name][0] for name, _ in _recognised(exc)), "broker_error")


def in_words(exc: BaseException) -> str:
    """The predicate of a sentence about the server: ``did not answer in time (TimeoutError)``."""
    for name, seen in _recognised(exc):
        return f"{_KNOWN[name][1]} ({type(seen).__name__})"
    return f"failed ({type(exc).__name__})"


def _recognised(exc: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Names that are known, of the exception and of what caused it, the nearest first."""
    seen: BaseException | None = exc
    while seen is not None:
        for cls in type(seen).__mro__:
            if cls.__name__ in _KNOWN:
                yield cls.__name__, seen
        seen = seen.__cause__
