"""Whether Celery can run a message is looked at before Celery's first use of it."""

from __future__ import annotations

import json

import pytest
from celery.app.task import Context

from optly_celery.names import DELIVER_TASK, ENQUEUED_AT_HEADER, REFUSED_HEADER
from optly_celery.worker.readable import check

from .doubles import a_message

URL = "https://logx.optimizely.com/v1/events"
READABLE = {
    "by position": {},
    "by name": {"body": [[], {"url": URL}, {}]},
    "no embed": {"body": [[URL], {}, None]},
    "protocol 1": {"body": {"id": "t-1", "task": "x", "args": [], "kwargs": {}}, "id": None},
    "protocol 1 without kwargs": {
        "body": {"id": "t-1", "task": "x", "args": [URL]},
        "id": None,
    },
    "no time limit": {"timelimit": [None, None]},
    "stamps": {"stamped_headers": ["a"], "stamps": {"a": [1]}},
    "times": {"eta": "2100-01-01T00:00:00", "expires": "2100-01-01T00:00:00+02:00"},
    "time limits": {"timelimit": [3, 2.5]},
    "retries": {"retries": 7},
    "no retries": {"retries": None},
    "another program's headers": {"traceparent": {"a": [1]}, "sentry-trace": "x", "n": 5},
    "nothing but what it needs": {"argsrepr": None, "kwargsrepr": None, ENQUEUED_AT_HEADER: None},
    "shown by another name": {"shadow": "shop.events"},
    "protocol 1 with all of it": {
        "body": {
            "id": "t-1",
            "task": "x",
            "args": [],
            "kwargs": {},
            "retries": 1,
            "utc": True,
            "eta": "2100-01-01T00:00:00",
            "expires": None,
            "timelimit": [None, 3],
            "taskset": "g",
            "callbacks": [{}],
            "errbacks": [],
            "chord": None,
        },
        "id": None,
    },
}
UNREADABLE = {
    "not JSON": {"body": "{"},
    "bytes": {"body": b"\xff\xfe"},
    "pickle": {"content_type": "application/x-python-serialize"},
    "null": {"body": "null"},
    "number": {"body": 5},
    "text": {"body": '"abc"'},
    "empty": {"body": []},
    "two parts": {"body": [[], {}]},
    "four parts": {"body": [[], {}, {}, {}]},
    "object": {"body": {"a": 1, "b": 2, "c": 3}},
    "args text": {"body": ["abc", {}, {}]},
    "args null": {"body": [None, {}, {}]},
    "args object": {"body": [{}, {}, {}]},
    "kwargs list": {"body": [[], [], {}]},
    "kwargs null": {"body": [[], None, {}]},
    "kwargs text": {"body": [[], "abc", {}]},
    "embed text": {"body": [[], {}, "abc"]},
    "embed list": {"body": [[], {}, [1]]},
    "protocol 1 args": {"body": {"id": "t-1", "args": 5, "kwargs": {}}, "id": None},
    "protocol 1 no id": {"body": {"args": [], "kwargs": {}}, "id": None},
    "no id": {"id": None},
    "id number": {"id": 5},
    "id list": {"id": ["t-1"]},
    "id object": {"id": {"a": 1}},
    "stamped headers number": {"stamped_headers": 5},
    "stamped headers of lists": {"stamped_headers": [[]]},
    "stamps list": {"stamps": [1]},
    "stamped headers true": {"stamped_headers": True},
    "time before time": {"eta": "0001-01-01T00:00:00+23:59"},
    "retries true": {"retries": True},
    "retries and time limits that add up": {"retries": "c", "timelimit": ["a", "b"]},
    "retries infinite": {"retries": float("inf")},
    "time limit infinite": {"timelimit": [float("inf"), None]},
    "time beyond time": {"eta": "9999-12-31T23:59:59-23:59"},
    "end beyond time": {"expires": "9999-12-31T23:59:59-23:59"},
    "time that is none": {"eta": "soon"},
    "time number": {"eta": 5},
    "time limit number": {"timelimit": 5},
    "time limit text": {"timelimit": "ab"},
    "time limit of one": {"timelimit": [1]},
    "time limit of three": {"timelimit": [1, 2, 3]},
    "time limit words": {"timelimit": ["a", None]},
    "retries text": {"retries": "3"},
    "retries list": {"retries": [3]},
    "retries object": {"retries": {"a": 1}},
    "retries below zero": {"retries": -1},
    "time limit below zero": {"timelimit": [-1, None]},
    "time limit true": {"timelimit": [True, None]},
    "id with a line break": {"id": "a\nb"},
    "id with an escape": {"id": "\x1b[31mred"},
    "id of bidi": {"id": "a\u202eb"},
    "id endless": {"id": "a" * 5000},
    "id empty": {"id": ""},
    "task object": {"task": {"a": 1}},
    "task list": {"task": ["a"]},
    "task number": {"task": 5},
    "task null": {"task": None},
    "task empty": {"task": ""},
    "task true": {"task": True},
    "task with a line break": {"task": "a\nb"},
    "shadow object": {"shadow": {"a": 1}},
    "shadow number": {"shadow": 5},
    "shadow with a line break": {"shadow": "a\nb"},
    "root id object": {"root_id": {"a": 1}},
    "parent id list": {"parent_id": [1]},
    "group object": {"group": {"a": 1}},
    "lang number": {"lang": 5},
    "origin object": {"origin": {"a": 1}},
    "argsrepr object": {"argsrepr": {"a": 1}},
    "kwargsrepr number": {"kwargsrepr": 5},
    "ignore result text": {"ignore_result": "no"},
    "nesting text": {"replaced_task_nesting": "3"},
    "stamped headers with a line break": {"stamped_headers": ["a\nb"]},
    "stamps by number": {"stamps": {5: 1}},
    "first time text": {ENQUEUED_AT_HEADER: "now"},
    "first time infinite": {ENQUEUED_AT_HEADER: float("inf")},
    "first time no number": {ENQUEUED_AT_HEADER: float("nan")},
    "first time true": {ENQUEUED_AT_HEADER: True},
    "refused text": {REFUSED_HEADER: "3"},
    "refused below zero": {REFUSED_HEADER: -3},
    "refused true": {REFUSED_HEADER: True},
    "end number": {"expires": 60},
    "end object": {"expires": {"a": 1}},
    "time of nothing": {"eta": "0000-00-00T00:00:00"},
    "protocol 1 no task": {"body": {"id": "t-1", "args": []}, "id": None, "task": None},
    "protocol 1 id": {"body": {"id": 5, "task": "x", "args": []}, "id": None, "task": None},
    "protocol 1 retries": {
        "body": {"id": "t-1", "task": "x", "args": [], "retries": "x"},
        "id": None,
        "task": None,
    },
    "content object": {"content_type": {"a": 1}},
    "content yaml": {"content_type": "application/x-yaml"},
    "deep": {"body": "[" * 50_000},
    "digits": {"body": "[[" + "9" * 5000 + "], {}, {}]"},
}
PARTS = {
    "reply": {"properties": {"reply_to": {"a": 1}}},
    "correlation": {"properties": {"correlation_id": [1]}},
    "properties": {"properties": [1]},
    "delivery info": {"delivery_info": [1]},
    "encoding object": {"content_encoding": {"a": 1}},
    "headers none": {"headers": None},
    "headers list": {"headers": []},
    "headers text": {"headers": "id"},
    "headers number": {"headers": 5},
}


@pytest.mark.parametrize("made", READABLE.values(), ids=READABLE)
def test_what_celery_can_run_is_left_as_it_is(made):
    """Its body above all, but for what would have the worker do something for a stranger."""
    message = a_message(**made)
    body = message.body

    check(message)

    assert message.body == body


@pytest.mark.parametrize("made", UNREADABLE.values(), ids=UNREADABLE)
def test_what_celery_cannot_run_is_refused(made):
    """Some of it would end the worker's loop, some would never come back from the pool."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - any at all
        check(a_message(**made))


@pytest.mark.parametrize("made", PARTS.values(), ids=PARTS)
def test_parts_that_are_none_are_refused(made):
    """Celery takes them for dictionaries without looking."""
    message = a_message()
    for name, value in made.items():
        setattr(message, name, value)

    with pytest.raises(Exception):  # noqa: B017, PT011 - any at all
        check(message)


@pytest.mark.parametrize("part", ["callbacks", "errbacks", "chain", "chord"])
@pytest.mark.parametrize("value", [[{"task": "t"}], {"task": "t"}, "x", [[]], True])
def test_nothing_is_run_or_published_for_a_stranger(part, value):
    """Wherever a message says so: beside its arguments, in its headers, or by protocol 1."""
    embedded = a_message(body=[["u"], {"a": 1.5}, {part: value, "other": None}])
    in_headers = a_message(**{part: value})
    first = a_message(
        body={"id": "t-1", "task": DELIVER_TASK, "args": ["u"], part: value}, id=None, task=None
    )
    for message in (embedded, in_headers, first):
        check(message)

    assert json.loads(embedded.body) == embedded.payload == [["u"], {"a": 1.5}, {}]
    assert part not in in_headers.headers
    assert first.payload == {"id": "t-1", "task": DELIVER_TASK, "args": ["u"]}


def test_what_stands_for_a_part_of_celerys_request_is_taken_away():
    """A header becomes an attribute of the task's request, also one named like its methods."""
    names = {name for name in dir(Context) if not name.startswith("__")}
    known = {"id": "t-1", "task": DELIVER_TASK}
    message = a_message(**dict.fromkeys(names - TYPED, 5), is_eager=True, _protected=1)

    check(message)

    left = Context(message.headers)
    assert left.id == known["id"]
    for name in ("get", "update", "clear"):
        assert callable(getattr(left, name)), name
    assert not left.is_eager
    assert left.called_directly


TYPED = {
    "args", "kwargs", "id", "task", "eta", "expires", "retries", "timelimit", "shadow", "group",
    "root_id", "parent_id", "origin", "ignore_result", "replaced_task_nesting", "stamps",
    "stamped_headers", "utc", "is_eager", "_protected", "group_index", "lang",
}  # fmt: skip


def test_another_tasks_message_keeps_what_belongs_to_it():
    """In the same queue there may be tasks of the app's own, and theirs may have callbacks."""
    body = [[], {}, {"callbacks": [{"task": "t"}]}]
    message = a_message(body=body, task="shop.mail", chord=[1])

    check(message)

    assert (message.payload, message.headers["chord"]) == (body, [1])
