"""Who listens hears of every event what `stats` counts of it."""

from __future__ import annotations

import contextlib

import pytest

from optly_celery import signals
from optly_celery.runtime.counters import Counters

NAMES = ("accepted", "published", "stored", "relayed", "dropped", "refused")
FULL = {"rows": 3, "bytes": 900, "oldest_age_s": 1.5}


@pytest.fixture
def heard():
    """What was told, in order: the signal's name and its facts."""
    told = []
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            signal = getattr(signals, name)

            def hear(*, name=name, signal, sender, **facts):
                told.append((name, facts))

            signal.connect(hear, weak=False)
            stack.callback(signal.disconnect, hear)
        yield told


def test_every_count_is_told(heard):
    """A listener hears of each change once, in its order, with the outbox's figures or a reason."""
    counters = Counters()
    counters.publish()
    counters.store(lambda: FULL)
    counters.relay(7, lambda: FULL)
    counters.drop("outbox_full")
    counters.refuse("no_url")

    assert heard == [
        ("accepted", {}),
        ("published", {}),
        ("accepted", {}),
        ("stored", {"outbox": FULL}),
        ("relayed", {"events": 7, "outbox": FULL}),
        ("accepted", {}),
        ("dropped", {"reason": "outbox_full"}),
        ("refused", {"reason": "no_url"}),
    ]


def test_what_is_told_adds_up_as_stats_do(heard):
    """Accepted is published, stored and dropped; losses are told each, not once a minute."""
    counters = Counters()
    for _ in range(3):
        counters.publish()
        counters.store(lambda: FULL)
        counters.drop("disabled")
    names = [name for name, _ in heard]
    assert names.count("accepted") == counters.as_dict()["accepted"] == 9
    assert names.count("dropped") == 3


def test_nobody_is_asked_how_full_the_outbox_is_for_nobody():
    """The request path pays for facts only where they are wanted."""
    Counters().store(lambda: pytest.fail("asked"))


def test_a_receiver_that_raises_hurts_nobody(heard):
    """Neither the event nor the other receivers."""

    def broken(**_):
        raise ZeroDivisionError

    signals.published.connect(broken, weak=False)
    try:
        Counters().publish()
    finally:
        signals.published.disconnect(broken)
    assert heard == [("accepted", {}), ("published", {})]


def test_a_receiver_may_look_at_the_counters():
    """They are not locked while it is told."""
    counters = Counters()
    seen = []

    def look(**_):
        seen.append(counters.as_dict()["published"])

    signals.published.connect(look, weak=False)
    try:
        counters.publish()
    finally:
        signals.published.disconnect(look)
    assert seen == [1]
