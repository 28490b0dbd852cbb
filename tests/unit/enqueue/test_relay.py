"""What the relay does with rows, told apart from how a broker takes them."""

from __future__ import annotations

import threading
import time

import pytest

from optly_celery.enqueue.claims import files_in, new_path
from optly_celery.enqueue.outbox import Outbox
from optly_celery.enqueue.relay import Relay
from optly_celery.errors import PublishError
from optly_celery.settings import Settings

from ...support import eventually
from .test_outbox import _descriptors, event_of


class ListPublisher:
    """Takes batches into a list; refuses as often as it is told to."""

    def __init__(self, refuse: int = 0) -> None:
        self.batches = []
        self.calls = 0
        self.refuse = refuse

    def publish_all(self, batches):
        taken = list(batches)
        self.calls += 1
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

    def make(publisher, *, in_line=False, **settings):
        settings = Settings(**{"linger": 0, **settings})
        outbox = Outbox(new_path(tmp_path), max_bytes=100_000_000)
        relayed = []
        relay = Relay(outbox, publisher, settings, on_relayed=relayed.append, in_line=in_line)
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


def test_trouble_is_over_once_the_broker_has_taken_something(make_relay):
    """From that moment events go to the broker again, and a later trouble is a first one."""
    publisher = ListPublisher(refuse=8)
    relay, outbox, _ = make_relay(publisher, in_line=True)
    outbox.append(event_of(1))
    assert relay.flush(30)  # which waits for no backoff: the one of 5 s and more is not over

    outbox.append(event_of(2))
    relay.wake()
    assert publisher.events == 2

    publisher.refuse = 1
    outbox.append(event_of(3))
    relay.wake()
    assert publisher.events == 2
    assert relay._not_before - time.monotonic() <= 0.1
    eventually(lambda: not relay.in_trouble)
    relay.wake()
    assert publisher.events == 3


def test_what_was_taken_last_says_whether_there_is_trouble(make_relay):
    """At once, and not only when the relay next finds nothing to do."""
    publisher = ListPublisher(refuse=2)
    relay, outbox, _ = make_relay(publisher)
    outbox.append(event_of(1))

    assert relay.flush(0.0) is False
    assert not relay.in_trouble, "nothing was tried"
    assert relay.flush(30)

    assert publisher.refuse == 0
    assert not relay.in_trouble


def test_with_nothing_to_try_with_the_next_event_is_tried(make_relay):
    """An event refused and not stored either: or all that come after it would not be tried."""
    relay, _, _ = make_relay(ListPublisher())

    relay.broker_failed(PublishError("not now", reason="broker_timeout"))
    assert relay.in_trouble

    eventually(lambda: not relay.in_trouble, timeout_s=30)


def test_the_backoff_stays_within_its_limit_however_long_an_outage_is(make_relay):
    """After days of failures as after ten of them: at most 10 s, and no number overflows."""
    relay, outbox, _ = make_relay(ListPublisher(refuse=1_000_000), in_line=True)
    outbox.append(event_of(1))
    relay._failures = 100_000

    relay.wake()

    assert 0 < relay._not_before - time.monotonic() <= 10.0


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
    relay, outbox, _ = make_relay(publisher, linger=2.0)
    for number in range(20):
        outbox.append(event_of(number, time.time()))
        relay.wake()

    eventually(lambda: publisher.events == 20)

    assert len(publisher.batches) == 1


def test_the_relay_lingers_for_what_is_left_of_the_linger(make_relay):
    """From the oldest event on, not for a full batch, and a clock set back costs no more."""
    relay, outbox, _ = make_relay(ListPublisher(), linger=60.0, batch_events=3)

    def lingers(*ages_s):
        for number, age_s in enumerate(ages_s):
            outbox.append(event_of(number, time.time() - age_s))
        found = relay._lingering_s()
        assert relay.flush(10)
        return found

    assert lingers() == 0.0
    assert 50 < lingers(0.0) <= 60
    assert 20 < lingers(30.0, 0.0) <= 30
    assert lingers(90.0) == 0.0
    assert lingers(-3600.0) == 60.0
    assert lingers(0.0, 0.0, 0.0) == 0.0


def test_closing_does_not_wait_for_the_linger(make_relay):
    """A process that ends does not wait for a batch to fill."""
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher, linger=60.0)
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


def test_adopting_holds_nothing_that_it_has_done_with(make_relay, tmp_path):
    """Neither a file, nor the right to it, nor its lock: a relay adopts for as long as it lives."""
    publisher = ListPublisher()
    relay, outbox, _ = make_relay(publisher, in_line=True)
    before = _descriptors()
    for number in range(5):
        _leave_behind(tmp_path, number)

    assert relay.adopt(tmp_path) == (5, 5, 0, True)

    assert _descriptors() == before
    assert not [path for path in tmp_path.iterdir() if outbox.path.name not in path.name]


def test_adopting_ends_with_the_first_refusal(make_relay, tmp_path):
    """A hung broker costs one timeout, not one for each file that somebody has left."""
    publisher = ListPublisher(refuse=1_000)
    relay, _, _ = make_relay(publisher)
    for number in range(5):
        _leave_behind(tmp_path, number)

    assert relay.adopt(tmp_path) == (0, 0, 0, False)

    assert publisher.calls == 1
    assert len(files_in(tmp_path)) == 5 + 1


def test_dead_processes_files_are_looked_for_now_and_then(make_relay, tmp_path):
    """Not at each event: a request may be waiting for it."""
    publisher = ListPublisher()
    relay, _, _ = make_relay(publisher, in_line=True)
    relay.wake()
    _leave_behind(tmp_path, 1)

    relay.wake()
    assert publisher.events == 0

    relay._adopt_at = time.monotonic()
    relay.wake()
    assert publisher.events == 1


def _leave_behind(directory, number):
    """An event in the file of a process that is gone."""
    left = Outbox(new_path(directory), max_bytes=1_000_000)
    left.append(event_of(number))
    left.close()
