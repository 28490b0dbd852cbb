"""Attributes that are made on first use, and once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from optly_celery.runtime.runtime import lazy


class Thing:
    """Has one of them."""

    def __init__(self, make):
        self._make = make

    @lazy
    def part(self):
        """What is made."""
        return self._make()


def test_threads_that_ask_at_once_get_the_same_one():
    """While the first one is being made, nobody begins to make a second one."""
    made, second, together = [], threading.Event(), threading.Barrier(8)

    def make():
        made.append(object())
        if len(made) > 1:
            second.set()
        second.wait(0.2)
        return made[-1]

    thing = Thing(make)

    def ask(_):
        together.wait()
        return thing.part

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == set(made)
    assert len(made) == 1


def test_it_is_not_asked_for_again():
    """What is made may be a connection or a file, of which there must not be two."""
    thing = Thing(object)
    assert thing.part is thing.part


def test_what_raises_is_tried_again():
    """As an outbox directory that is writable the next time."""
    answers = [ValueError("not yet"), "made"]

    def make():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    thing = Thing(make)
    with pytest.raises(ValueError, match="not yet"):
        _ = thing.part
    assert thing.part == "made"


def test_one_may_ask_for_another_while_it_is_made():
    """The same thread does not wait for itself."""

    class Pair:
        first = lazy(lambda self: [self.second])
        second = lazy(lambda self: 2)  # noqa: ARG005 - as a method

    assert Pair().first == [2]


def test_the_class_shows_what_it_is():
    """``help`` finds the description without anything being made."""
    assert Thing.part.__doc__ == "What is made."
