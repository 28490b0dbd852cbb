"""One tree of errors, and what becomes of them on their way out of a worker process."""

from __future__ import annotations

import inspect
import pickle

import pytest

from optly_celery import errors
from optly_celery.errors import (
    DeadLetterError,
    NoSuchDeadLetterError,
    NotAnEventError,
    OptlyCeleryError,
    OutboxError,
    PermanentDeliveryError,
    PublishError,
    SettingsError,
    TransientDeliveryError,
)

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]
RAISED = [
    SettingsError("optly_queue is 7: a name is allowed"),
    NotAnEventError("the event has no url", reason="no_url"),
    PublishError("not published", reason="broker_timeout"),
    OutboxError("not stored", reason="outbox_full"),
    TransientDeliveryError("HTTP 503", reason="http_503", status=503, retry_after_s=7.0),
    TransientDeliveryError("HTTP 503", reason="http_503", status=503, retry_in_s=2.5),
    PermanentDeliveryError("HTTP 400", reason="http_400", status=400),
    TransientDeliveryError("shutdown", reason="shutdown", retry_in_s=0.0, spends=False),
    PermanentDeliveryError("not HTTPS", reason="not_https"),
    DeadLetterError("Redis did not take it"),
    NoSuchDeadLetterError("no dead letter has the id 1"),
]


@pytest.mark.parametrize("cls", ALL)
def test_every_error_has_one_root(cls):
    """``except OptlyCeleryError`` catches all that is ours."""
    assert issubclass(cls, OptlyCeleryError)


@pytest.mark.parametrize("cls", ALL)
def test_the_tree_is_drawn_in_the_modules_docstring(cls):
    """Who looks for an error finds them all in one place."""
    assert f" {cls.__name__} " in errors.__doc__.replace("\n", " ")


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_the_way_out_of_a_worker_child(error, protocol):
    """A prefork worker pickles what its children raise: text and attributes stay."""
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_words_of_a_refusal_stay_in_their_process():
    """They are kept by then, and what leaves a child is logged and shown."""
    error = PermanentDeliveryError("HTTP 400", reason="http_400", status=400, answer="ann")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert (error.answer, again.answer) == ("ann", None)
    assert "ann" not in repr(error) + str(error) + str(error.args)


def test_a_retry_can_be_told_from_a_failure_by_type_alone():
    """``autoretry_for`` and ``throws`` of the task go by class."""
    assert not issubclass(TransientDeliveryError, PermanentDeliveryError)
    assert not issubclass(PermanentDeliveryError, TransientDeliveryError)
