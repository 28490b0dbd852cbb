"""What the relay does with rows, told apart from how a broker takes them."""

from __future__ import annotations

import threading
import time

import pytest

from optly_celery.enqueue.claims import files_in, new_path
from optly_celery.enqueue.outbox import Outbox
from optly_celery.enqueue.relay import Relay
from optly_celery.errors import PublishError

from ...support import eventually
from .test_outbox import event_of


class ListPublisher:
    """Takes batches into a list; refuses as often as it is told to."""

    def __init__(self, refuse: int = 0) -> None:
        self.batches = []
        self.refuse = refuse

    def publish_all(self, batches):
        taken = list(batches)
        if self.refuse:
            self.refuse -= 1
            raise PublishError("not now", reason="broker_timeout")
        self.batches += taken

    @property
    def events(self) -> int:
        return sum(batch.event_count for batch in self.batches)


@pytest.fixture
def make_relay(tmp_path):
    made = []

    def make(publisher, **options):
        options = {"batch_events": 100, "batch_bytes": 3_000_000, "linger_s": 0.0} | options
        outbox = Outbox(new_path(tmp_path), max_bytes=100_000_000)
        relayed = []
        relay = Relay(outbox, publisher, on_relayed=relayed.append, **options)
        made.append((relay, outbox))
        return relay, outbox, relayed

    yield make
    for relay, outbox in made:
        relay.close(1)
        outbox.close()


def test_events_of_one_context_share_batches(make_relay):
    """250 events of two contexts: two batches of 100 and the rest, none mixed."""
    publisher = ListPublisher()
    relay, outbox, relayed = make_relay(publisher)
    for number in range(250):
        outbox.append(event_of(number, revision="1" if number < 220 else "2"))

    assert relay.flush(10)

    assert sorted(batch.event_count for batch in publisher.batches) == [20, 30, 100, 100]
    assert sum(relayed) == 250
    assert outbox.rows == 0


def test_rows_stay_until_the_broker_has_them(make_relay):
    """A refusal settles nothing; the next round takes the same rows, each once."""
    publisher = ListPublisher(refuse=3)
    relay, outbox, relayed = make_relay(publisher)
    for number in range(5):
        outbox.append(event_of(number))
    relay.wake()

    eventually(lambda: relay.in_trouble or relayed)
    assert outbox.rows == 5 or relayed
    eventually(lambda: publisher.events == 5)

    eventually(lambda: not relay.in_trouble)
    assert outbox.rows == 0


def test_flush_gives_up_in_time_and_loses_nothing(make_relay):
    """While the broker is away, flush says that something is left, and leaves it."""
    relay, outbox, _ = make_relay(ListPublisher(refuse=1_000_000))
    outbox.append(event_of(1))

    assert relay.flush(0.2) is False

    assert outbox.rows == 1


def test_where_threads_cannot_run_the_caller_relays(make_relay):
    """uWSGI without threads: wake does the work itself, and starts nothing."""
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher, in_line=True)
    before = threading.active_count()
    outbox.append(event_of(1))
    relay.wake()

    assert publisher.events == 1
    assert threading.active_count() == before


def test_a_dead_processs_file_is_adopted_and_removed(make_relay, tmp_path):
    """What another process left is relayed, and nothing is left of its file."""
    left = Outbox(new_path(tmp_path), max_bytes=1_000_000)
    for number in range(5):
        left.append(event_of(number))
    left.close()
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher)
    relay.wake()

    eventually(lambda: publisher.events == 5)
    eventually(lambda: files_in(tmp_path) == [outbox.path])


def test_a_damaged_file_stops_nobody(make_relay, tmp_path):
    """It is set aside, under a name that says so; the others are relayed."""
    damaged = tmp_path / "0-damaged.outbox"
    damaged.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher)
    outbox.append(event_of(1))
    relay.wake()

    eventually(lambda: publisher.events == 1)
    eventually(lambda: list(tmp_path.glob("*.damaged-*")))


def test_a_batch_fills_while_the_relay_lingers(make_relay):
    """Events a few milliseconds apart travel together."""
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher, linger_s=2.0)
    for number in range(20):
        outbox.append(event_of(number, time.time()))
        relay.wake()

    eventually(lambda: publisher.events == 20)

    assert len(publisher.batches) == 1


def test_closing_does_not_wait_for_the_linger(make_relay):
    """A process that ends does not wait for a batch to fill."""
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher, linger_s=60.0)
    outbox.append(event_of(1))
    relay.wake()
    eventually(relay._thread._thread.is_alive)
    started = time.monotonic()

    assert relay.close(30)

    assert publisher.events == 1
    assert time.monotonic() - started < 20
    assert not relay._thread._thread.is_alive()


def test_in_line_a_dead_processs_file_is_adopted_bit_by_bit(make_relay, tmp_path):
    """A request waits for it, so it is one read of rows at a time."""
    publisher = ListPublisher()
    relay, _, _ = make_relay(publisher, in_line=True)
    dead = Outbox(new_path(tmp_path), max_bytes=100_000_000)
    for number in range(1_500):
        dead.append(event_of(number))
    dead.close()

    assert relay.adopt(tmp_path).events == 1_000
    assert relay.adopt(tmp_path).events == 500
