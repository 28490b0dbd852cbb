"""A wrong configuration is told when the site starts."""

from __future__ import annotations

import os
import socket

import pytest
from celery import _state
from django.core.checks import run_checks
from django.test import override_settings

from optly_celery import celery_app as apps

from ..conftest import celery_app
from .django_site import DATAFILE, optimizely

GOOD = {"datafile": DATAFILE}


def found(*, deploy=False):
    """Ids of what the checks find, by their tag."""
    messages = run_checks(tags=["optimizely"], include_deployment_checks=deploy)
    assert all(m.hint for m in messages)
    return [m.id.removeprefix("optly_celery.") for m in messages]


@pytest.fixture
def configured(broker):
    """Run the checks with a Celery app of this configuration: ``configured(accept_content=…)``."""

    def check(*, url=broker.url, deploy=False, **conf):
        with celery_app(url, **conf):
            return found(deploy=deploy)

    with override_settings(OPTIMIZELY=GOOD):
        yield check


@pytest.fixture
def no_celery(monkeypatch):
    """As in a process that has made no Celery app."""
    monkeypatch.setattr(_state, "_tls", type(_state._tls)())
    monkeypatch.setattr(_state, "default_app", None)
    monkeypatch.setattr(apps, "_apps", [])
    apps._chosen.clear()
    with override_settings(OPTIMIZELY=GOOD):
        yield
    apps._chosen.clear()


def test_a_good_configuration_passes(configured):
    """Where all is well nothing is said, or nobody would read what is."""
    assert configured() == []


@pytest.mark.parametrize("given", [{}, {"sdk_key": ""}, {"sdk_key": None}, {"on_commit": False}])
def test_neither_key_nor_datafile(configured, given):
    """An empty key is what an environment variable that is not set leaves."""
    with override_settings(OPTIMIZELY=given):
        assert configured() == ["E001"]


def test_no_settings_at_all(configured):
    """The app was added and ``OPTIMIZELY`` forgotten: told at start, not by missing numbers."""
    with override_settings():
        from django.conf import settings

        del settings.OPTIMIZELY
        assert configured() == ["E001"]


@pytest.mark.parametrize(
    "given", [{"sdk_kee": "x"}, {"datafile": "no JSON"}, {**GOOD, "event_dispatcher": object()}]
)
def test_an_option_that_cannot_work(configured, given):
    """A typo, a datafile that is none, a dispatcher that is none: told at start as well."""
    with override_settings(OPTIMIZELY=given):
        assert configured() == ["E002"]


def test_no_celery_app(no_celery):
    """Events would go to Redis on localhost, where nobody takes them."""
    assert found() == ["E003"]


def test_the_broker_named_in_the_environment_will_do_without_one(no_celery, monkeypatch):
    """``OPTLY_BROKER_URL`` says where events go, so nothing is left to guess."""
    monkeypatch.setenv("OPTLY_BROKER_URL", "redis://localhost:6379/0")

    assert found() == []


def test_several_celery_apps_and_none_the_default(no_celery, monkeypatch):
    """Which of them events should go through is not guessed."""
    made = [type("App", (), {"main": name, "set_as_current": True})() for name in "ab"]
    monkeypatch.setattr(apps, "_apps", made)
    apps._chosen.clear()

    assert found() == ["E004"]


def test_a_wrong_celery_setting(configured):
    """A misspelt ``optly_`` name would otherwise leave its default in force, unseen."""
    assert configured(optly_quue="x") == ["E004"]


def test_a_configuration_that_raises(configured):
    """A configuration is a program: what it raises is reported, and ends no start of its own."""
    with celery_app("redis://localhost") as app:
        app.config_from_object("nowhere.at_all")
        assert found() == ["E004"]


def test_workers_that_refuse_json(configured):
    """Events are enqueued as JSON, so these workers could not deliver one."""
    assert configured(accept_content=["yaml"]) == ["E005"]


def test_workers_that_accept_pickle(configured):
    """A concern, no error: events arrive, but who can write to the broker can run code."""
    assert configured(accept_content=["json", "pickle"]) == ["W005"]


def test_a_queue_that_workers_do_not_take_from_by_themselves(configured):
    """A concern, as ``-Q`` would help; once the queue is listed there is none."""
    assert configured(task_queues={"celery": {}}) == ["W006"]
    assert configured(task_queues={"celery": {}, "optimizely": {}}) == []


def test_a_queue_that_no_worker_can_take_from(configured):
    """Not even ``-Q`` would help here, so it is an error."""
    given = {"task_queues": {"celery": {}}, "task_create_missing_queues": False}

    assert configured(**given) == ["E006"]


@pytest.mark.parametrize("route", [{"queue": "other"}, "other"])
def test_a_route_that_events_do_not_take(configured, route):
    """Whoever wrote it expects events in another queue than they are enqueued to."""
    assert configured(task_routes={"optly_celery.deliver": route}) == ["W008"]


def test_a_route_to_the_queue_itself_is_fine(configured):
    """It says what happens anyway, which is no reason for a warning."""
    assert configured(task_routes={"optly_celery.deliver": {"queue": "optimizely"}}) == []


@pytest.mark.parametrize(("delivery", "expected"), [("direct", "W007"), ("outbox", "E007")])
def test_an_outbox_that_cannot_be_written(configured, tmp_path, delivery, expected):
    """A file is where the directory should be; permissions mean nothing to root."""
    place = tmp_path / "outbox"
    place.write_text("in the way")

    assert configured(optly_outbox_dir=str(place), optly_delivery=delivery) == [expected]


def test_an_outbox_without_permission(configured, tmp_path, monkeypatch):
    """Root may write anywhere, so the answer is made up."""
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)

    assert configured(optly_outbox_dir=str(tmp_path / "outbox")) == ["W007"]


def test_looking_for_the_outbox_makes_nothing(configured, tmp_path):
    """Checks may be run by another user than the app's, who must not own its directory."""
    configured(optly_outbox_dir=str(tmp_path / "a" / "b"))

    assert not (tmp_path / "a").exists()


def test_a_broker_that_keeps_no_dead_letters(configured):
    """A refused event would have no place to be kept in."""
    assert configured(url="amqp://localhost//") == ["E009"]


def test_what_is_switched_off_needs_no_broker(configured):
    """With ``optly_enabled`` off a developer's machine passes, even with ``--deploy``."""
    assert configured(url="amqp://localhost//", deploy=True, optly_enabled=False) == []


def test_an_unreachable_broker_is_told_by_deployment_checks_alone(configured):
    """A start must not fail because the broker is away for a minute."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{sock.getsockname()[1]}/0"

        assert configured(url=url) == []
        assert configured(url=url, deploy=True) == ["E010"]


def test_deployment_checks_miss_a_worker(configured):
    """A broker that answers is not enough: without a worker events only pile up there."""
    assert configured(deploy=True) == ["W011"]


def test_no_check_shows_a_password(configured):
    """Neither the key of the SDK nor what is in the broker's URL."""
    with optimizely(sdk_key="hush"), celery_app("redis://:hush@127.0.0.1:1/0"):
        messages = run_checks(tags=["optimizely"], include_deployment_checks=True)

    assert [m.id for m in messages] == ["optly_celery.E010"]
    assert "hush" not in str(messages)
