"""Counting what became of events, and warning of losses without flooding the log."""

from __future__ import annotations

import threading

import pytest

from optly_celery.runtime.counters import Tally


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_every_accepted_event_is_published_stored_or_dropped():
    """``accepted`` is the sum; what was no event is not part of it."""
    tally = Tally()
    tally.publish()
    tally.publish()
    tally.drop("broker_timeout")
    tally.drop("disabled")
    tally.drop("disabled")
    tally.refuse("no_url")
    tally.store(dict)
    tally.relay(7, dict)

    assert tally.as_dict() == {
        "accepted": 6,
        "published": 2,
        "stored": 1,
        "relayed": 7,
        "dropped": {"broker_timeout": 1, "disabled": 2},
        "refused": {"no_url": 1},
    }


@pytest.mark.parametrize("loss", ["drop", "refuse"])
def test_a_loss_is_warned_of_once_a_minute_with_its_number(loss):
    """The first at once; the others together with the first that comes after a minute."""
    clock = Clock()
    tally = Tally(clock)
    count = getattr(tally, loss)

    warnings = [count("reason") for _ in range(10)]
    clock.now += 59.9
    warnings.append(count("reason"))
    clock.now += 0.1
    warnings.append(count("reason"))

    assert warnings == [1, *[0] * 10, 11]


def test_each_reason_has_its_own_minute():
    """A new kind of trouble is not hidden by a known one."""
    tally = Tally(Clock())

    assert [tally.drop("a"), tally.drop("b"), tally.drop("a"), tally.drop("b")] == [1, 1, 0, 0]


def test_what_is_returned_is_a_copy():
    """Who looks at the numbers does not change them, nor sees them change."""
    tally = Tally()
    tally.drop("a")
    seen = tally.as_dict()
    tally.drop("a")

    assert seen["dropped"] == {"a": 1}


def test_no_count_is_lost_between_threads():
    """Eight threads at once, and each warning is given once."""
    tally = Tally(Clock())
    warned = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(500):
            tally.publish()
            warned.append(tally.drop("a"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally.as_dict()["published"] == 4_000
    assert tally.as_dict()["dropped"] == {"a": 4_000}
    assert sum(warned) == 1
