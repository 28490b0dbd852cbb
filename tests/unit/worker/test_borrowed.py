"""What is borrowed is looked for before anything leans on it."""

# ruff: noqa: ARG005 - it is about what functions take, not about what they do with it

from __future__ import annotations

import pytest

from optly_celery.worker import borrowed
from optly_celery.worker.borrowed import FEATURES, Feature, missing


def test_this_celery_and_kombu_have_all_of_it():
    """Or every worker would do without something, and the other tests would test that."""
    assert missing() == {}


@pytest.mark.parametrize(
    "gone",
    [
        "kombu.transport.nowhere:Channel.close",
        "kombu.transport.redis:Channel.nothing",
        "kombu.transport.redis:Nothing.close",
        "kombu.transport.redis:Channel._brpop_start(other)",
        "celery.worker.state:nothing",
    ],
)
def test_a_name_that_is_gone_or_takes_something_else_is_told(monkeypatch, gone):
    """Each is named, and the feature is missing whatever else it needs."""
    there = "celery.worker.state:should_stop"
    monkeypatch.setitem(FEATURES, "receipt", Feature("less", (there, gone)))

    assert missing() == {"receipt": [gone]}


@pytest.mark.parametrize(
    ("found", "is_there"),
    [
        (lambda: None, False),
        (lambda self: None, False),
        (lambda self, **options: None, False),
        (lambda self, timeout: None, True),
        (lambda *args, **kwargs: None, True),  # as a monitoring agent wraps it
        (lambda self, *args, **kwargs: None, True),
    ],
)
def test_a_function_counts_by_what_it_takes(monkeypatch, found, is_there):
    """One that takes nothing any more is gone; one that takes anything may be what it was."""
    monkeypatch.setattr("kombu.transport.redis.Channel._brpop_start", found)

    assert borrowed._is_there("kombu.transport.redis:Channel._brpop_start(timeout)") is is_there


@pytest.mark.parametrize(
    "there",
    [
        "celery.worker.state:should_stop",  # which is None
        "kombu.transport.virtual.base:Message._raw",  # which its constructor sets
        "kombu.transport.redis:Channel._brpop_start(timeout)",
    ],
)
def test_what_is_there_is_found_whatever_it_is(there):
    """A value that is None, what only instances have, a method with these parameters."""
    assert borrowed._is_there(there)
