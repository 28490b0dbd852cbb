"""The plug-in, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..support import US_URL, params_of

pytest_plugins = ["pytester"]

SEND = f"""
from optly_celery import dispatch

US_URL = {US_URL!r}

PARAMS = {params_of("ann")!r}
"""


@pytest.fixture
def run(pytester):
    """Run these tests in a process of its own, where only installed plug-ins are loaded."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run_them(source, *arguments):
        pytester.makepyfile(source)
        return pytester.runpytest_subprocess(
            *arguments, "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout",
            "-p", "no:celery", "-p", "no:docker_tools",  # pytest-celery, after make test-docker
        )  # fmt: skip

    return run_them


def test_each_test_has_its_own_events(run):
    """What one test sends, the next does not see; nothing needs to be configured."""
    run(
        SEND
        + """
def test_first(optly_events):
    dispatch(US_URL, PARAMS)
    assert [e.user_id for e in optly_events.events] == ["ann"]

def test_second(optly_events):
    optly_events.assert_nothing()
"""
    ).assert_outcomes(passed=2)


def test_a_failure_shows_what_was_sent(run):
    """The report ends in the test's own line, not inside of the helper."""
    result = run(
        SEND
        + """
def test_it(optly_events):
    dispatch(US_URL, PARAMS)
    optly_events.assert_tracked("purchase", user_id="bob")
"""
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">   *optly_events.assert_tracked*",
            "E   *AssertionError: no conversion with event_key='purchase' user_id='bob'",
            "E   *recorded: 1",
            "E   *decision*user_id='ann'*",
        ]
    )
    assert "__tracebackhide__" not in result.stdout.str()


def test_the_collector_is_stopped_after_the_test(run):
    """And takes events while it lasts."""
    run(
        SEND
        + """
import requests, pytest

urls = []

def test_first(optly_collector):
    optly_collector.script(503, 503, 204)
    dispatch(US_URL, PARAMS)
    assert optly_collector.statuses == [503, 503, 204]
    urls.append(optly_collector.url)

def test_second():
    with pytest.raises(requests.ConnectionError):
        requests.get(urls[0])
"""
    ).assert_outcomes(passed=2)


def test_an_unused_plug_in_imports_nothing_of_the_package(run):
    """No Celery, no SDK, no thread: pytest loads plug-ins in every run."""
    run(
        """
import sys, threading

def test_it(request):
    assert request.config.pluginmanager.has_plugin("optly_celery")
    roots = {name.partition(".")[0] for name in sys.modules}
    assert not {"optly_celery", "celery", "kombu", "redis", "optimizely", "requests"} & roots
    assert threading.active_count() == 1
"""
    ).assert_outcomes(passed=1)


def test_a_used_plug_in_loads_neither_sdk_nor_task(run):
    """Nor does it start a thread, where only events are recorded."""
    run(
        """
import sys, threading

def test_it(optly_events):
    assert not {"optimizely", "optly_celery.tasks", "jsonschema"} & set(sys.modules)
    assert threading.active_count() == 1
"""
    ).assert_outcomes(passed=1)


def test_the_fixtures_are_listed_with_what_they_are_for():
    """``pytest --fixtures`` is where people look."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-q", "--rootdir=/", "-c", "/dev/null",
         __file__],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    assert "optly_events" in listed
    assert "optly_collector" in listed
