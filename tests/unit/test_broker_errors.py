"""What is wrong with a server, in words and as a reason to count by."""

from __future__ import annotations

import amqp.exceptions
import kombu.exceptions
import pytest
import redis

from optly_celery.broker_errors import in_words, reason_of


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
    assert in_words(error).startswith(words)
    assert "secret" not in in_words(error)


def test_a_wrapped_error_is_looked_into():
    """Kombu wraps what its transports raise."""
    wrapper = kombu.exceptions.OperationalError("secret")
    wrapper.__cause__ = redis.TimeoutError("secret")

    assert in_words(wrapper) == "did not answer in time (TimeoutError)"
    assert reason_of(wrapper) == "broker_timeout"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (redis.ConnectionError(), "broker_unreachable"),
        (ConnectionRefusedError(), "broker_unreachable"),
        (redis.exceptions.BusyLoadingError(), "broker_unreachable"),
        (redis.TimeoutError(), "broker_timeout"),
        (TimeoutError(), "broker_timeout"),
        (redis.AuthenticationError(), "broker_refused"),
        (redis.exceptions.NoPermissionError(), "broker_refused"),
        (redis.ResponseError(), "broker_refused"),
        (amqp.exceptions.AccessRefused(), "broker_refused"),
        (redis.exceptions.OutOfMemoryError(), "broker_out_of_memory"),
        (redis.exceptions.ReadOnlyError(), "broker_read_only"),
        (redis.InvalidResponse(), "broker_error"),
        (ValueError(), "broker_error"),
    ],
)
def test_each_error_has_a_reason_that_publish_errors_document(error, reason):
    """People alert on reasons, so each means one thing whichever client raised the error."""
    assert reason_of(error) == reason
