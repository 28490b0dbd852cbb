"""What is wrong with a server, in words that a person can act on and that hold no secret.

Exceptions of kombu, redis-py and amqp are told apart by the names of their classes, so that this
needs none of the three. Their own texts may quote a URL with its password, or what was sent.
"""

from __future__ import annotations

_WORDS = {
    "AuthenticationError": "refused the user name or password",
    "AccessRefused": "refused the user name or password",
    "AuthorizationError": "does not let this user do that",
    "NoPermissionError": "does not let this user do that",
    "BusyLoadingError": "is still loading its data",
    "OutOfMemoryError": "is out of memory",
    "ReadOnlyError": "is read-only",
    "InvalidResponse": "does not answer as a broker does",
    "ResponseError": "refused the command",
    "TimeoutError": "did not answer in time",
    "ConnectionError": "cannot be reached",
    "OSError": "cannot be reached",
}


def trouble(exc: BaseException) -> str:
    """The predicate of a sentence about the server: ``did not answer in time (TimeoutError)``."""
    seen: BaseException | None = exc
    while seen is not None:
        for cls in type(seen).__mro__:
            if cls.__name__ in _WORDS:
                return f"{_WORDS[cls.__name__]} ({type(seen).__name__})"
        seen = seen.__cause__
    return f"failed ({type(exc).__name__})"
