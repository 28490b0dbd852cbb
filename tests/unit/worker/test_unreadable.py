"""Messages that cannot be read are kept, of the deliver queue alone."""

from __future__ import annotations

import pytest

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.loop import Loop
from optly_celery.worker.receive import origin
from optly_celery.worker.suspects import Suspects
from optly_celery.worker.unreadable import Unreadable

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


def guard_of(consumer, letters):
    loop = Loop(consumer)
    suspects = Suspects(letters, loop)
    return Unreadable(consumer, loop, letters, suspects, queue=QUEUE, give_back_s=7.0)


@pytest.fixture
def consumer(letters):
    made = Consumer(an_app())
    guard_of(made, letters).install()
    return made


@pytest.fixture
def receive(consumer):
    """As a message comes to the consumer, from a queue; it answers with what became of it."""
    handle = consumer.create_task_handler()

    def received(message, queue=QUEUE):
        with origin.receiving(queue):
            handle(message)
        return message.channel.words

    return received


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_what_is_ours_is_kept_and_then_acked(consumer, letters, hook, reason, args):
    """Celery would log it with its content, and delete it."""
    message = a_message()

    with origin.receiving(QUEUE):
        getattr(consumer, hook)(*args(message))

    assert letters.reasons == [reason]
    assert letters.kept[0].event.params["message"]["body"] == message.body
    assert message.channel.words == ["ack"]
    assert consumer.celerys_way == []


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_what_is_somebody_elses_goes_celerys_way(consumer, letters, hook, reason, args):
    """The worker's other queues are none of this package's business, whatever a message says."""
    message = a_message(routing_key=QUEUE)

    with origin.receiving("celery"):
        getattr(consumer, hook)(*args(message))

    assert consumer.celerys_way == [(hook, message)]
    assert (letters.kept, message.channel.settled) == ([], [])


@pytest.mark.parametrize("info", [None, {}, {"routing_key": "shop.events"}, {"routing_key": 5}])
def test_what_counts_is_the_queue_that_it_was_received_from(consumer, receive, letters, info):
    """A queue may be bound by another key, and a message may name none."""
    message = a_message(body="{")
    message.delivery_info = info

    assert receive(message) == ["ack"]

    assert letters.reasons == ["undecodable"]
    assert consumer.celerys_way == []


@pytest.mark.parametrize(("hook", "reason", "args"), HOOKS)
def test_while_the_store_is_away_it_comes_again_later(consumer, letters, hook, reason, args):
    """Unacked until then, and given back, so that another look finds it."""
    letters.away = True
    message = a_message()

    with origin.receiving(QUEUE):
        getattr(consumer, hook)(*args(message))

    consumer.turn()
    assert (consumer.timer.waits, message.channel.settled) == ([30.0], [])
    consumer.timer.run()
    assert message.channel.words == ["give back"]
    assert consumer.celerys_way == []


def test_a_lost_connection_at_the_ack_is_no_error(consumer, letters):
    """The message comes again, and its letter is the same one."""
    channel = Channel()
    channel.refuses = 1

    with origin.receiving(QUEUE):
        consumer.on_unknown_message(None, a_message(channel=channel))

    assert letters.reasons == ["unknown_message"]


def test_what_can_be_read_is_celerys(consumer, receive, letters):
    """And what comes from another queue is not even looked at."""
    good, foreign = a_message(), a_message(body="{")

    assert receive(good) == receive(foreign, "celery") == []

    assert consumer.celerys_way == [("on_task_received", good), ("on_task_received", foreign)]
    assert letters.kept == []


@pytest.mark.parametrize("headers", [None, [], "id", 5, {}, {"task": {"a": 1}}, {"id": "t"}])
def test_headers_that_are_none_end_no_worker(consumer, receive, letters, headers):
    """Celery looks them up without looking at them."""
    message = a_message()
    message.headers = headers

    assert receive(message) == ["ack"]

    assert (letters.reasons, consumer.celerys_way) == (["undecodable"], [])


class Raising:
    """What Celery does with each message."""

    def __init__(self, exc):
        self.exc = exc

    def __call__(self, _message):
        raise self.exc


@pytest.mark.parametrize(
    "exc", [TypeError("visitor-1"), KeyError("visitor-1"), RecursionError(), RuntimeError("no")]
)
def test_what_celery_raises_ends_no_worker_and_is_kept_in_the_end(consumer, letters, caplog, exc):
    """It is given back twice, with a wait; at the third time a person is to see it."""
    consumer.connection_errors = (ConnectionError, KeyError)
    guard = guard_of(consumer, letters)
    words = []
    for _ in range(3):
        message = a_message()
        with origin.receiving(QUEUE):
            guard.receive(Raising(exc), message)
        consumer.turn()
        assert consumer.timer.waits in ([7.0], [])
        consumer.timer.run()
        words += message.channel.words

    assert words == ["give back", "give back", "ack"]
    assert letters.reasons == ["unexpected_error"]
    assert letters.strikes == {}
    assert "visitor-1" not in caplog.text


def test_a_lost_connection_is_for_celery_to_see(consumer, letters):
    """Or the worker would not connect again."""
    guard = guard_of(consumer, letters)

    with origin.receiving(QUEUE), pytest.raises(ConnectionResetError):
        guard.receive(Raising(ConnectionResetError()), a_message())

    assert letters.strikes == {}


def test_deaths_are_counted_before_the_body_is_read(consumer, receive, letters, monkeypatch):
    """Reading may be what kills; then it is kept without having been read again."""
    read = []
    monkeypatch.setattr("optly_celery.worker.readable.check", lambda message: _die(read, message))
    for _ in range(2):  # and before them the death at which nobody was suspected
        with pytest.raises(KeyboardInterrupt):
            receive(a_message(**{SWEPT_HEADER: True}))
        letters.strikes = {"reading:t-1": len(read) + 1}  # what it noted before it died

    message = a_message(body="deadly", **{SWEPT_HEADER: True})
    assert receive(message) == ["ack"]

    assert len(read) == 2
    assert letters.reasons == ["killed_worker"]
    assert letters.kept[0].event.params["message"]["body"] == "deadly"


def _die(read, message):
    read.append(message)
    raise KeyboardInterrupt


def test_a_suspect_that_was_read_is_not_counted_again(consumer, receive, letters):
    """What comes after that is counted by whoever runs it."""
    receive(a_message(**{SWEPT_HEADER: True}))

    assert letters.strikes == {}
    assert len(consumer.celerys_way) == 1


def test_a_store_that_is_away_keeps_no_suspect_from_being_read(consumer, receive, letters):
    """Its deaths cannot be counted, then."""
    letters.away = True

    receive(a_message(**{SWEPT_HEADER: True}))

    assert len(consumer.celerys_way) == 1
