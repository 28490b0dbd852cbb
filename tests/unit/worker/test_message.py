"""What a message says, whatever it is that somebody has put into the queue."""

from __future__ import annotations

import base64
import json
import re
import time
from types import SimpleNamespace

import pytest

from optly_celery.names import ENQUEUED_AT_HEADER
from optly_celery.worker.message import (
    host_in,
    is_due,
    kept_message,
    kept_request,
    name_of,
    summary,
    url_in,
    url_of,
)

from ...support import US_URL, params_of
from .doubles import SINCE, a_message


@pytest.mark.parametrize(
    ("payload", "url"),
    [
        ([[US_URL, "POST", {}], {}, {}], US_URL),
        ([[], {"url": US_URL}, {}], US_URL),
        ([[US_URL], {"url": "other"}, None], US_URL),
        ([[], {}, {}], None),
        ([[5], {}, {}], 5),
        ([[], [], {}], None),
        ([[], None, {}], None),
        ([None, None, None], None),
        ([{"a": 1}, {}, {}], None),
        ([5, {}, {}], None),
        ([[US_URL], {}], None),
        ([], None),
        ({}, None),
        ({"args": [US_URL]}, None),
        ("abcd", None),
        (None, None),
        (5, None),
    ],
)
def test_a_url_is_found_where_the_task_would_find_it(payload, url):
    """By position or by name; of anything else there is none, and no error."""
    assert url_of(payload) == url


@pytest.mark.parametrize(
    ("message", "url"),
    [
        (a_message(), US_URL),
        (a_message(body="{"), None),
        (a_message(body=b"\xff\xfe"), None),
        (a_message(content_type="application/x-python-serialize"), None),
        (None, None),
    ],
)
def test_a_message_that_cannot_be_read_has_no_url(message, url):
    """Whether its body is not JSON, not text, or not allowed: Celery is to refuse it."""
    assert url_in(message) == url


@pytest.mark.parametrize(
    ("eta", "due"),
    [
        (None, True),
        ("2001-01-01T00:00:00", True),
        ("2001-01-01T00:00:00+00:00", True),
        ("0001-01-01T00:00:00+23:59", True),
        ("2999-01-01T00:00:00", False),
        ("2999-01-01T00:00:00+02:00", False),
        ("9999-12-31T23:59:59-23:59", False),
        ("tomorrow", True),
        ("", True),
        (5, True),
        ([], True),
        ({}, True),
        (True, True),
    ],
)
def test_a_message_is_due_from_its_time_on(eta, due):
    """One whose time cannot be read is due, so that Celery sees and refuses it."""
    assert is_due(eta) is due


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (US_URL, "logx.optimizely.com"),
        ("HTTPS://LOGX.Optimizely.com/v1", "logx.optimizely.com"),
        ("http://logx.optimizely.com:8080/", "logx.optimizely.com:8080"),
        ("http://user:pw@here/", "here"),
        ("http://[::1]:80/", "::1:80"),
        ("http://here:99999/", None),
        ("http://here:x/", None),
        ("http://[", None),
        ("no url", None),
        ("", None),
        ("http://", None),
    ],
)
def test_a_host_is_named_with_its_port_and_nothing_else(url, host):
    """Two ports may be two services; a user and a password are nobody's business."""
    assert host_in(url) == host


@pytest.mark.parametrize(
    "payload",
    [None, 5, [], {}, [[], {}, {}], [[5], {}, {}], [[US_URL], {"x": 1}, {}], [["a"] * 9, {}, {}]],
)
def test_what_is_no_event_has_a_summary_that_says_so(payload):
    """Nothing of it is shown: it may be anything."""
    assert summary(payload) == "no event"


def test_a_summary_of_an_event_shows_no_visitor():
    """Its arguments hold personal data."""
    shown = summary([[US_URL, "POST", params_of("somebody")], {}, {}])

    assert shown.startswith("POST logx.optimizely.com, project 111001, 1 event")
    assert "somebody" not in shown


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("not json", "not json"),
        ("äöü".encode(), "äöü"),
        (b"\xff\x00\xfe", base64.b64encode(b"\xff\x00\xfe").decode()),
        (b"", ""),
    ],
)
def test_a_message_is_kept_with_its_whole_body(body, kept):
    """As text where it is text, otherwise as base64: a person can get every byte back."""
    made = kept_message(a_message(body=body), "undecodable")

    whole = made.event.params["message"]
    assert whole["body"] == kept
    assert (whole["content-type"], whole["content-encoding"]) == ("application/json", "utf-8")
    assert whole["properties"] == {"correlation_id": "t-1"}
    assert (made.task_id, made.reason, made.attempts, made.first_at) == (
        "t-1", "undecodable", 0, SINCE,
    )  # fmt: skip
    json.dumps(made.event.params)


@pytest.mark.parametrize(
    "headers", [None, [], "text", 5, {}, {"id": None}, {"id": b"\xff"}, {"id": "a\nb"}]
)
def test_a_message_with_odd_headers_is_kept_too(headers):
    """Nothing that the headers hold, or are, keeps a message from being kept."""
    message, before = a_message(), time.time()
    message.headers = headers

    made = kept_message(message, "unknown_message")

    assert made.task_id == name_of(message)
    assert re.fullmatch("[0-9a-f]{32}", made.task_id)
    assert made.attempts == 0
    assert before <= made.first_at <= time.time()
    json.dumps(made.event.params)


@pytest.mark.parametrize("retries", ["3", None, [], 1.5, {}, True, -1, float("inf")])
def test_odd_retries_count_as_none(retries):
    """A number of attempts is a number."""
    message = a_message()
    message.headers["retries"] = retries

    assert kept_message(message, "undecodable").attempts == 0


def test_retries_of_a_message_are_its_attempts():
    """It has been tried so often, before whatever made it unreadable."""
    assert kept_message(a_message(retries=4), "undecodable").attempts == 4


@pytest.mark.parametrize(
    "since",
    [None, "yesterday", [], {}, True, -5, 0, float("nan"), float("inf"), 10**400, 9e12],
)
def test_a_message_that_does_not_say_since_when_is_new(since):
    """Its age is what a letter is looked for by, so there is always one."""
    before = time.time()
    message = a_message(**{ENQUEUED_AT_HEADER: since})

    for made in (kept_message(message, "x"), kept_request(a_request(message), "x")):
        assert before <= made.first_at <= time.time()


def a_request(message):
    return SimpleNamespace(message=message, id=message.headers["id"])


def test_a_request_is_kept_as_its_event():
    """So that it can be replayed; the attempt that is under way counts."""
    made = kept_request(a_request(a_message(retries=2)), "killed_worker")

    assert (made.event.url, made.event.params) == (US_URL, params_of())
    assert (made.task_id, made.reason, made.attempts, made.first_at) == (
        "t-1", "killed_worker", 3, SINCE,
    )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        "{",
        b"\xff",
        [],
        {},
        [[], {}, {}],
        [[5, 5, 5], {}, {}],
        [[US_URL, "POST", 5], {}, {}],
        [[US_URL], {"unknown": 1}, {}],
        [[US_URL, "POST", {}], {"headers": 5}, {}],
    ],
)
def test_a_request_without_an_event_is_kept_as_its_message(body):
    """Whatever is wrong with it, a person is to have it as it came."""
    made = kept_request(a_request(a_message(body=body)), "unexpected_error")

    assert made.event.url is None
    assert set(made.event.params["message"]) == {
        "body", "content-type", "content-encoding", "headers", "properties",
    }  # fmt: skip
    assert made.reason == "unexpected_error"
