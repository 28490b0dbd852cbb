"""Counting what became of events, and warning of losses without flooding the log."""

from __future__ import annotations

import threading

import pytest

from optly_celery.runtime.counters import Counters


class Clock:
    """Time that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_every_accepted_event_is_published_stored_or_dropped():
    """``accepted`` is the sum; what was no event is not part of it."""
    counters = Counters()
    counters.publish()
    counters.publish()
    counters.drop("broker_timeout")
    counters.drop("disabled")
    counters.drop("disabled")
    counters.refuse("no_url")
    counters.store(dict)
    counters.relay(7, dict)

    assert counters.as_dict() == {
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
    counters = Counters(clock)
    count = getattr(counters, loss)

    warnings = [count("reason") for _ in range(10)]
    clock.now += 59.9
    warnings.append(count("reason"))
    clock.now += 0.1
    warnings.append(count("reason"))

    assert warnings == [1, *[0] * 10, 11]


def test_each_reason_has_its_own_minute():
    """A new kind of trouble is not hidden by a known one."""
    counters = Counters(Clock())

    assert [counters.drop("a"), counters.drop("b"), counters.drop("a"), counters.drop("b")] == [
        1,
        1,
        0,
        0,
    ]


def test_what_is_returned_is_a_copy():
    """Who looks at the numbers does not change them, nor sees them change."""
    counters = Counters()
    counters.drop("a")
    seen = counters.as_dict()
    counters.drop("a")

    assert seen["dropped"] == {"a": 1}


def test_no_count_is_lost_between_threads():
    """Eight threads at once, and each warning is given once."""
    counters = Counters(Clock())
    warned = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(500):
            counters.publish()
            warned.append(counters.drop("a"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counters.as_dict()["published"] == 4_000
    assert counters.as_dict()["dropped"] == {"a": 4_000}
    assert sum(warned) == 1
