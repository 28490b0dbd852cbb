"""What is stored of a request and of an error."""

from __future__ import annotations

import copy
import pickle

import pytest
from celery.app.task import Context
from celery.exceptions import MaxRetriesExceededError, TimeLimitExceeded, WorkerLostError

from optly_celery.errors import OptlyCeleryError, PermanentDeliveryError, TransientDeliveryError
from optly_celery.worker.results import discreet, shown_error, shown_request

from ...support import US_URL, params_of
from .doubles import an_app

SHOWN = "POST logx.optimizely.com, project 111001, 1 event, 516 B"


def with_words(error):
    error.answer = "jane@example.com is no visitor"
    return error


@pytest.mark.parametrize(
    ("error", "kind", "args"),
    [
        (ValueError("jane"), OptlyCeleryError, ("unexpected ValueError",)),
        (UnicodeEncodeError("utf-8", "jane", 0, 1, "jane"), OptlyCeleryError,
         ("unexpected UnicodeEncodeError",)),
        (MaxRetriesExceededError("jane", task_args=["jane"]), OptlyCeleryError,
         ("unexpected MaxRetriesExceededError",)),
        (KeyboardInterrupt("jane"), OptlyCeleryError, ("unexpected KeyboardInterrupt",)),
        (WorkerLostError("signal 9"), WorkerLostError, ("signal 9",)),
        (TimeLimitExceeded(3), TimeLimitExceeded, (3,)),
        (with_words(PermanentDeliveryError("x", reason="http_400", status=400)),
         PermanentDeliveryError, ("x",)),
        (TransientDeliveryError("x", reason="http_503", retry_in_s=3.0),
         TransientDeliveryError, ("x",)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_of_an_error_that_may_quote_anything_the_name_is_shown(error, kind, args):
    """Ours hold no event data; what hangs on them beside their reason stays here."""
    shown = shown_error(error)

    assert (type(shown), shown.args) == (kind, args)
    assert b"jane" not in pickle.dumps(shown)
    if isinstance(error, OptlyCeleryError):
        assert shown.reason == error.reason
    assert shown.__traceback__ is shown.__cause__ is shown.__context__ is None


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        ({"args": [US_URL, "POST", params_of("jane")], "kwargs": {}}, None),
        ({"args": [], "kwargs": {"url": US_URL, "params": params_of("jane")}}, None),
        ({"args": [params_of("jane")], "kwargs": {"jane": 1}}, "no event"),
        ({"args": "jane", "kwargs": "jane"}, "no event"),
        ({"args": None, "kwargs": None}, None),
        ({"argsrepr": SHOWN, "args": ["jane"], "kwargs": {}}, SHOWN),
        ({"argsrepr": "('jane',)", "kwargsrepr": "jane", "args": [], "kwargs": {}}, None),
        ({"args": [], "stamped_headers": ["who"], "stamps": {"who": ["jane"]}}, None),
        ({"args": [], "headers": {"who": "jane"}}, None),
    ],
)
def test_of_a_request_a_summary_is_shown_and_the_request_keeps_what_it_has(request_, shown):
    """A retry still needs the payload that the result is not to hold."""
    request = Context(request_)
    before = dict(vars(request))

    made = shown_request(request)

    assert "jane" not in repr(vars(made))
    assert made.kwargs == {}
    (text,) = made.args
    assert text == shown or shown is None
    assert vars(request) == before


class Memory:
    """Stands for a result backend: remembers what it is given."""

    def __init__(self):
        self.stored = []

    def mark_as_done(self, task_id, result, request=None):
        return self.store_result(task_id, result, "SUCCESS", request=request)

    def store_result(self, task_id, result, state, traceback=None, request=None, **options):
        self.stored.append((task_id, result, state, traceback, request, options))
        return result

    def __reduce__(self, args=(), kwargs=None):
        return _remade, (type(self), args, kwargs)


def _remade(kind, _args, _kwargs):
    return kind()


def test_a_backend_is_the_same_but_for_what_it_stores():
    """It shares the connections; whatever marks a task's state goes the same way."""
    memory = Memory()
    ours = discreet(memory)

    assert ours.mark_as_done("t", None, request=Context(args=["jane"], kwargs={})) is None
    ours.store_result("t", ValueError("jane"), "FAILURE", "jane", None, more=1)

    (done, failed) = memory.stored
    assert isinstance(ours, Memory)
    assert done[4].args == ["no event"]
    assert (failed[1].args, failed[3:]) == (("unexpected ValueError",), (None, None, {"more": 1}))
    assert discreet(ours) is ours
    assert type(discreet(memory)) is type(ours), "made once for a class"


def test_a_result_can_be_copied_and_pickled_as_ever():
    """It takes its backend along, which is then the backend's own class."""
    assert type(pickle.loads(pickle.dumps(discreet(Memory())))) is Memory  # noqa: S301 - our own
    assert type(copy.copy(discreet(Memory()))) is Memory


def test_a_result_without_a_request_is_stored():
    """As when a person revokes a task that no worker has."""
    assert shown_request(None) is None


def test_the_tasks_backend_is_discreet_and_the_apps_is_left_alone():
    """Other tasks of the app have results as ever; a backend that is set by hand is discreet."""
    from .test_task import Double

    app = an_app()
    task, memory = app.register_task(Double()), Memory()

    assert type(task.backend) is not type(app.backend)
    assert isinstance(task.backend, type(app.backend))
    task.backend = memory
    assert task.backend.stored is memory.stored
    assert type(task.backend) is not Memory
