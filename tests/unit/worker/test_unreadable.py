"""Messages that cannot be read are kept, of the deliver queue alone."""

from __future__ import annotations

import pytest
from celery.exceptions import InvalidTaskError

from optly_celery.worker.unreadable import Unreadable, only_readable

from .doubles import QUEUE, Channel, Consumer, Letters, a_message, an_app

HOOKS = [
    ("on_decode_error", "undecodable", lambda m: (m, ValueError())),
    ("on_invalid_task", "undecodable", lambda m: (None, m, ValueError())),
    ("on_unknown_message", "unknown_message", lambda m: (None, m)),
    ("on_unknown_task", "unknown_task", lambda m: (None, m, KeyError())),
]


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def consumer(letters):
    made = Consumer(an_app())
    Unreadable(made, letters, queue=QUEUE).install()
    return made


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_what_is_ours_is_kept_and_then_acked(consumer, letters, hook, reason, args):
    """Celery would log it with its content, and delete it."""
    message = a_message()

    getattr(consumer, hook)(*args(message))

    assert letters.reasons == [reason]
    assert letters.kept[0].event.params["message"]["body"] == message.body
    assert message.channel.words == ["ack"]
    assert consumer.celerys_way == []


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_what_is_somebody_elses_goes_celerys_way(consumer, letters, hook, reason, args):
    """The worker's other queues are none of this package's business."""
    message = a_message(routing_key="celery")

    getattr(consumer, hook)(*args(message))

    assert consumer.celerys_way == [(hook, message)]
    assert (letters.kept, message.channel.settled) == ([], [])


@pytest.mark.parametrize("info", [None, {}, "absent"])
def test_a_message_that_does_not_say_where_it_comes_from_is_not_ours(consumer, letters, info):
    """Keeping another program's message would take it away from there."""
    message = a_message()
    if info == "absent":
        del message.delivery_info
    else:
        message.delivery_info = info

    consumer.on_unknown_message(None, message)

    assert consumer.celerys_way == [("on_unknown_message", message)]
    assert letters.kept == []


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_while_the_store_is_away_it_comes_again_later(consumer, letters, hook, reason, args):
    """Unacked until then, and given back, so that another look finds it."""
    letters.away = True
    message = a_message()

    getattr(consumer, hook)(*args(message))

    assert (consumer.timer.waits, message.channel.settled) == ([30.0], [])
    consumer.timer.run()
    assert message.channel.words == ["give back"]
    assert consumer.celerys_way == []


def test_a_lost_connection_at_the_ack_is_no_error(consumer, letters):
    """The message comes again, and its letter is the same one."""
    channel = Channel()
    channel.refuses = 1

    consumer.on_unknown_message(None, a_message(channel=channel))

    assert letters.reasons == ["unknown_message"]


URL = "https://logx.optimizely.com/v1/events"
READABLE = {
    "by position": {},
    "by name": {"body": [[], {"url": URL}, {}]},
    "no embed": {"body": [[URL], {}, None]},
    "protocol 1": {"body": {"id": "t-1", "task": "x", "args": [], "kwargs": {}}, "id": None},
    "protocol 1 without kwargs": {"body": {"id": "t-1", "args": [URL]}, "id": None},
    "no time limit": {"timelimit": [None, None]},
    "stamps": {"stamped_headers": ["a"], "stamps": {"a": [1]}},
    "times": {"eta": "2100-01-01T00:00:00", "expires": "2100-01-01T00:00:00+02:00"},
    "time limits": {"timelimit": [3, 2.5]},
    "retries": {"retries": 7},
    "no retries": {"retries": None},
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
}


@pytest.mark.parametrize("made", READABLE.values(), ids=READABLE)
def test_what_celery_can_run_it_receives(made):
    """As it came, with all that Celery hands over besides, and with Celery's answer."""
    got = []
    receive = only_readable(lambda *args, **kwargs: got.append((args, kwargs)) or "answer")
    message = a_message(**made)

    assert receive(message, None, "ack", callbacks=[]) == "answer"

    assert got == [((message, None, "ack"), {"callbacks": []})]


@pytest.mark.parametrize("made", UNREADABLE.values(), ids=UNREADABLE)
def test_what_celery_cannot_run_it_does_not_receive(made):
    """Some of it would end the worker's loop, some would never come back from the pool."""
    got = []

    with pytest.raises(InvalidTaskError):
        only_readable(got.append)(a_message(**made))

    assert got == []


@pytest.mark.parametrize("headers", [None, [], "id", 5])
def test_headers_that_are_none_are_refused(headers):
    """Celery takes them for a dictionary without looking."""
    message = a_message()
    message.headers = headers

    with pytest.raises(InvalidTaskError):
        only_readable(list)(message)


def test_a_refusal_quotes_nothing_of_the_message():
    """Celery logs it, and the message may hold a visitor's data."""
    with pytest.raises(InvalidTaskError) as caught:
        only_readable(list)(a_message(body='{"secret'))

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
