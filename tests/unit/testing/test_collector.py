"""Delivery to a scripted collector, without broker or worker."""

from __future__ import annotations

import sys

import pytest
import requests

from optly_celery import SettingsError, dispatch
from optly_celery.runtime import process as runtime
from optly_celery.testing import CLOSE, HANG, Answer, Collector, delivering

from ...support import US_URL, params_of, visitor_of


@pytest.fixture
def collector():
    with Collector() as running, delivering(running):
        yield running


def test_an_event_has_arrived_when_dispatch_returns(collector):
    """As Optimizely would get it, and asserted on like what is recorded."""
    dispatch(US_URL, params_of("ann", "u-1"))

    assert collector.statuses == [204]
    assert collector.decisions(user_id="ann")[0].uuid == "u-1"
    assert runtime._runtimes == {}


def test_scripted_failures_are_retried_until_one_attempt_is_taken(collector):
    """Statuses, and what else a network can do, in the order of the script."""
    collector.script(503, 429, CLOSE, Answer(500, {"Retry-After": "3600"}), 204)

    dispatch(US_URL, params_of("ann"))

    assert collector.statuses == [503, 429, None, 500, 204]
    assert len(collector.events) == 1
    assert len({request.body for request in collector.received}) == 1
    assert collector.kept == []


def test_a_collector_that_hangs_is_given_up_on():
    """The limit is the test's to choose."""
    with Collector() as collector, delivering(collector, timeout_s=0.1):
        collector.script(HANG)
        dispatch(US_URL, params_of("ann"))

        assert collector.statuses == [None, 204]


def test_what_the_event_api_does_not_document_is_refused_and_kept(collector):
    """Alone: the visitors beside it are delivered. A failed assertion tells of it."""
    params = params_of("ann", "u-1")
    params["visitors"].append({"visitor_id": 7})
    params["visitors"].append(visitor_of("bob", "u-2"))

    dispatch(US_URL, params)

    assert sorted(e.user_id for e in collector.events) == ["ann", "bob"]
    assert [(event.visitors, reason) for event, reason in collector.kept] == [
        ([{"visitor_id": 7}], "http_400")
    ]
    with pytest.raises(AssertionError, match=r"answered: 400.*\nkept: POST logx.*: http_400$"):
        collector.assert_decided("checkout")


def test_attempts_run_out(collector):
    """Then it is kept, as by a worker."""
    collector.down = Answer(503)

    dispatch(US_URL, params_of("ann"))

    assert collector.statuses == [503] * 10
    assert [reason for _, reason in collector.kept] == ["attempts_exhausted"]


def test_strictness_needs_jsonschema_and_says_so(monkeypatch):
    """It is an optional package; a collector that takes everything does without."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)

    with pytest.raises(SettingsError, match=r"pip install 'optly-celery\[testing\]'"):
        Collector()

    with Collector(strict=False) as collector, delivering(collector, strict=False):
        dispatch(US_URL, {"anything": 1})
        assert collector.statuses == [204]


def test_a_collector_is_strict_whoever_posts():
    """The real API asks for a header; a test should not have to know."""
    with Collector() as collector:
        statuses = [
            requests.post(collector.url, json=params, timeout=5).status_code
            for params in (params_of("ann"), {"visitors": 7})
        ]

    assert statuses == collector.statuses == [204, 400]
