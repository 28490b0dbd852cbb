"""A worker that is set up wrong does not start, and says why."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from optly_celery.worker.parts import parts_of
from optly_celery.worker.receive.transport import Transport
from optly_celery.worker.request import GiveBack, give_backs_in_a_line
from optly_celery.worker.start import DeliverStep, prepare

from .doubles import Consumer, an_app

EX_CONFIG = 78


@pytest.fixture(autouse=True)
def celery_s_log():
    """As it was: a filter that is added stays for as long as the process."""
    log = logging.getLogger("celery.app.trace")
    before = log.filters[:]
    log.filters.clear()
    yield log
    log.filters[:] = before


def test_a_worker_is_prepared_before_it_takes_anything(celery_s_log):
    """Its step, its receipt and its filter are in place, with the steps that only tune it."""
    app, tuning = an_app(), type("Tuning", (), {})

    prepare(app, tuning=(tuning,))

    assert {DeliverStep, tuning} <= app.steps["consumer"]
    assert app.conf.broker_transport == f"{Transport.__module__}:Transport"
    assert celery_s_log.filters == [give_backs_in_a_line]


def test_preparing_twice_is_preparing_once(celery_s_log):
    """An app may have two workers in one process, one after the other."""
    app = an_app()

    prepare(app)
    prepare(app)

    assert list(app.steps["consumer"]).count(DeliverStep) == 1
    assert len(celery_s_log.filters) == 1


@pytest.mark.parametrize(
    "conf",
    [
        {"optly_pause_after": -1},
        {"optly_retry_backof": 1},
        {"optly_request_timeout": "soon"},
        {"optly_retry_backoff": 9, "optly_retry_backoff_max": 8},
        {"optly_dead_letter_url": "redis://:pass word@[/0"},
        {"broker_url": "amqp://127.0.0.1//"},
        {"broker_transport_options": {"visibility_timeout": 60}},
    ],
)
def test_wrong_settings_end_it_with_78(conf, capsys):
    """It says what is wrong, where a person looks: there is no log yet."""
    app = an_app()
    app.conf.update(conf)

    with pytest.raises(SystemExit) as caught:
        prepare(app)

    assert caught.value.code == EX_CONFIG
    assert capsys.readouterr().err.startswith("optly_celery: ")
    assert DeliverStep not in app.steps["consumer"]
    assert app.conf.broker_transport is None


def test_no_password_is_shown_of_a_wrong_url(capsys):
    """The line goes to whatever keeps the output of a service."""
    app = an_app(optly_dead_letter_url="redis://:secret@[/0")

    with pytest.raises(SystemExit):
        prepare(app)

    assert "secret" not in capsys.readouterr().err


def step_of(consumer, timeout_s):
    channel = SimpleNamespace(visibility_timeout=timeout_s)
    consumer.connection = SimpleNamespace(default_channel=channel)
    return DeliverStep(consumer)


@pytest.mark.parametrize("timeout_s", [60, 315.0])
def test_a_visibility_timeout_that_is_too_short_ends_it_with_78(timeout_s, caplog):
    """The connection may say another one than the settings: Redis would hand events out twice."""
    consumer = Consumer(an_app(optly_retry_backoff_max=300.0, optly_request_timeout=(5.0, 10.0)))
    step = step_of(consumer, timeout_s)

    with pytest.raises(SystemExit) as caught:
        step.start(consumer)

    assert caught.value.code == EX_CONFIG
    assert [r.levelname for r in caplog.records] == ["CRITICAL"]
    assert consumer.timer.entries == []  # nothing has begun


@pytest.mark.parametrize("timeout_s", [316, "316", 3600.0, None])
def test_a_visibility_timeout_that_is_long_enough_lets_it_start(timeout_s):
    """Or none at all, as with a broker that is no Redis."""
    consumer = Consumer(an_app(optly_retry_backoff_max=300.0, optly_request_timeout=(5.0, 10.0)))

    step_of(consumer, timeout_s).start(consumer)

    assert consumer.timer.entries


def test_the_step_puts_the_unreadable_away_from_its_making_on():
    """Before the consumer receives anything, so before any start."""
    consumer = Consumer(an_app())
    before = consumer.on_unknown_task

    DeliverStep(consumer)

    assert consumer.on_unknown_task != before


@pytest.mark.parametrize("end", ["stop", "shutdown"])
def test_nothing_runs_by_the_clock_after_its_end(end):
    """Neither with the connection nor with the worker: a tick would touch a closed channel."""
    consumer = Consumer(an_app())
    step = step_of(consumer, None)
    step.start(consumer)

    getattr(step, end)(consumer)

    consumer.turn()
    consumer.timer.run()
    consumer.turn()
    assert consumer.timer.entries == []


def test_a_step_that_never_started_can_be_stopped():
    """Celery stops all of them when one fails to start."""
    consumer = Consumer(an_app())

    step_of(consumer, None).stop(consumer)

    assert parts_of(consumer).pausing.report() == []


def test_the_filter_knows_a_give_back():
    """It is the one that stands in the way of a traceback for each."""
    error = GiveBack("x")
    made = logging.LogRecord("x", 30, "x", 1, "m", (), (GiveBack, error, None))

    assert give_backs_in_a_line(made)
    assert made.exc_info is None
