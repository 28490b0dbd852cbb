"""What is wrong with a server, in words."""

from __future__ import annotations

import amqp.exceptions
import kombu.exceptions
import pytest
import redis

from optly_celery.trouble import trouble


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.ConnectionError("secret"), "cannot be reached (ConnectionError)"),
        (redis.TimeoutError("secret"), "did not answer in time (TimeoutError)"),
        (redis.AuthenticationError("secret"), "refused the user name or password"),
        (redis.exceptions.BusyLoadingError("secret"), "is still loading its data"),
        (redis.exceptions.OutOfMemoryError("secret"), "is out of memory"),
        (redis.exceptions.ReadOnlyError("secret"), "is read-only"),
        (redis.ResponseError("secret"), "refused the command (ResponseError)"),
        (redis.InvalidResponse("secret"), "does not answer as a broker does"),
        (amqp.exceptions.AccessRefused("secret"), "refused the user name or password"),
        (ConnectionRefusedError("secret"), "cannot be reached (ConnectionRefusedError)"),
        (TimeoutError("secret"), "did not answer in time"),
        (ValueError("secret"), "failed (ValueError)"),
    ],
)
def test_each_error_says_what_is_wrong_and_nothing_secret(error, words):
    """Its own text may hold a URL, or what was sent."""
    assert trouble(error).startswith(words)
    assert "secret" not in trouble(error)


def test_a_wrapped_error_is_looked_into():
    """Kombu wraps what its transports raise."""
    wrapper = kombu.exceptions.OperationalError("secret")
    wrapper.__cause__ = redis.TimeoutError("secret")

    assert trouble(wrapper) == "did not answer in time (TimeoutError)"
