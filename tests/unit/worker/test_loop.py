"""What touches a message runs in the worker's own loop, whoever asks for it."""

from __future__ import annotations

import pytest

from optly_celery.worker.loop import Loop

from .doubles import Consumer, an_app


@pytest.fixture
def app():
    return an_app()


def test_soon_is_when_the_loop_turns_next(app):
    """Not in the pool's thread that asks: kombu's channels are for one thread."""
    consumer, done = Consumer(app), []

    Loop(consumer).soon(lambda: done.append(1))

    assert done == []
    consumer.turn()
    assert done == [1]


def test_soon_is_at_once_among_greenlets_without_a_loop(app):
    """There Celery's own list is looked at every two seconds, and no two greenlets collide."""
    consumer, done = Consumer(app, green=True, hub=None), []

    Loop(consumer).soon(lambda: done.append(1))

    assert done == [1]


@pytest.mark.parametrize(("green", "hub"), [(True, "a loop"), (False, None)])
def test_soon_waits_for_the_loop_where_there_is_one_or_threads_are(app, green, hub):
    """Green with a loop, or threads without: each has somewhere else to run it."""
    consumer, done = Consumer(app, green=green, hub=hub), []

    Loop(consumer).soon(lambda: done.append(1))

    assert done == []
    consumer.turn()
    assert done == [1]


def test_later_goes_to_the_timer_by_way_of_the_loop(app):
    """The timer's heap has no lock: a thread of the pool must not push to it."""
    consumer, done = Consumer(app), []

    Loop(consumer).later(7.5, lambda: done.append(1))

    assert consumer.timer.waits == []
    consumer.turn()
    assert (consumer.timer.waits, done) == ([7.5], [])
    consumer.timer.run()
    assert (consumer.timer.waits, done) == ([], [1])


def test_later_goes_straight_to_the_timer_among_greenlets(app):
    """Their timer is made of greenlets itself, and the loop may be two seconds away."""
    consumer = Consumer(app, green=True, hub=None)

    Loop(consumer).later(7.5, list)

    assert consumer.timer.waits == [7.5]


def test_a_pool_that_does_not_say_whether_it_is_green_is_not(app):
    """So with a pool of somebody's own making; the loop is right for any."""
    consumer, done = Consumer(app, hub=None), []
    consumer.pool = object()

    Loop(consumer).soon(lambda: done.append(1))

    assert done == []
