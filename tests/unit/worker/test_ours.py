"""An app's worker of other queues is let alone, until somebody has it deliver as well."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from celery import Celery
from kombu import Exchange, Queue

from optly_celery.worker.ours import consumes
from optly_celery.worker.parts import known_parts
from optly_celery.worker.start import DeliverStep, prepare

from .doubles import Consumer, an_app

WRONG = [
    {"optly_pause_after": -1},
    {"optly_retry_backof": 1},
    {"optly_request_timeout": "soon"},
    {"optly_queue": 7},
    {"optly_retry_backoff": 9, "optly_retry_backoff_max": 8},
    {"optly_dead_letter_url": "redis://:pass word@[/0"},
    {"broker_url": "amqp://127.0.0.1//"},
    {"broker_url": "memory://"},
    {"broker_url": "filesystem://"},
    {"broker_url": "sqs://"},
    {"broker_url": ["redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"]},
    {"broker_url": "redis://127.0.0.1:1/0;redis://127.0.0.1:2/0"},
    {"broker_transport_options": {"visibility_timeout": 60}},
    {"broker_transport_options": {"visibility_timeout": "soon"}},
]


def another(*queues, **conf):
    app = an_app(**conf)
    app.amqp.queues.select(list(queues or ["other"]))
    return app


def consumer_of(app, timeout_s=None):
    consumer = Consumer(app)
    consumer.connection = SimpleNamespace(
        default_channel=SimpleNamespace(visibility_timeout=timeout_s)
    )
    return consumer


@pytest.mark.parametrize("conf", WRONG, ids=str)
def test_a_worker_of_other_queues_starts_whatever_our_settings_say(conf):
    """It is none of ours: nothing is refused, nothing is chosen for it, nothing runs in it."""
    app, tuning = another(**conf), type("Tuning", (), {})

    assert prepare(app, tuning=(tuning,)) is False
    consumer = consumer_of(app, 1)
    before = consumer.on_unknown_task
    step = DeliverStep(consumer)
    step.start(consumer)
    step.stop(consumer)

    assert app.conf.broker_transport is None
    assert tuning not in app.steps["consumer"]
    assert consumer.timer.entries == []
    assert consumer.on_unknown_task == before
    assert known_parts(consumer) is None


@pytest.mark.parametrize(
    ("queues", "conf"),
    [
        (["optimizely"], {}),
        (["other", "optimizely"], {}),
        (["events"], {"optly_queue": "events"}),
        (["alias"], {"task_queues": [Queue("optimizely", Exchange("x"), "x", alias="alias")]}),
        ([], {"task_queues": [Queue("other"), Queue("optimizely")]}),
        ([], {"task_default_queue": "optimizely"}),
    ],
)
def test_whoever_consumes_the_queue_is_ours(queues, conf):
    """By ``-Q``, by its configuration alone, among others, or by another name."""
    app = Celery("unit", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    app.amqp.queues.select(queues)

    assert consumes(app)


@pytest.mark.parametrize(
    ("queues", "conf"),
    [
        (["other"], {}),
        ([], {}),
        (["optimizely"], {"optly_queue": "events"}),
        (["optimizely2", "optimizel"], {}),
        (["OPTIMIZELY"], {}),
        ([], {"task_queues": [Queue("other", Exchange("optimizely"), "optimizely")]}),
    ],
)
def test_whoever_does_not_is_not(queues, conf):
    """Neither a similar name nor an exchange or a routing key of this name makes it ours."""
    app = Celery("unit", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    app.amqp.queues.select(queues)

    assert not consumes(app)


def test_it_says_once_that_it_delivers_nothing_and_what_to_add(caplog):
    """One that was meant to deliver is not found out by the events that wait."""
    app = another("b", "a", optly_queue="events")
    consumer = consumer_of(app)
    step = DeliverStep(consumer)

    step.start(consumer)
    step.start(consumer)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "-Q events,a,b" in record.getMessage()


@pytest.mark.parametrize("already", [True, False], ids=["known", "unknown"])
def test_a_queue_that_is_added_finds_everything_in_place(already):
    """By remote control: before its first message is asked for."""
    app = another()
    if already:
        app.amqp.queues.add(Queue("optimizely"))
    consumer = consumer_of(app, 3600)
    step = DeliverStep(consumer)
    step.start(consumer)
    before = consumer.on_unknown_task

    consumer.add_task_queue("elsewhere")
    assert known_parts(consumer) is None
    consumer.add_task_queue("optimizely")

    assert "optimizely" in consumer.task_consumer.names
    assert consumer.timer.entries
    assert consumer.on_unknown_task != before


@pytest.mark.parametrize(
    ("conf", "timeout_s"), [*((wrong, None) for wrong in WRONG[:3]), ({}, 60)], ids=str
)
def test_a_queue_that_cannot_be_served_is_not_added(conf, timeout_s, caplog):
    """What the worker does beside it goes on."""
    consumer = consumer_of(another(**conf), timeout_s)
    step = DeliverStep(consumer)
    step.start(consumer)
    caplog.clear()

    consumer.add_task_queue("optimizely")

    assert "optimizely" not in consumer.task_consumer.names
    assert [r.levelname for r in caplog.records] == ["CRITICAL"]
