"""Suspects run one at a time."""

from __future__ import annotations

import pytest
from celery.worker import state

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.suspects import MOST_DEATHS, Suspects


class Later:
    """A loop that has things done later, and notes how many."""

    def __init__(self):
        self.waiting = []

    def later(self, _seconds, callback):
        self.waiting.append(callback)


class Swept:
    """A request that a dead worker left."""

    def __init__(self):
        self.request_dict = {SWEPT_HEADER: True}


class Slow(Suspects):
    """Waits for Redis at each note, while ``meanwhile`` is what another greenlet does."""

    def __init__(self, deaths=1):
        super().__init__(None, Later())
        self.deaths_noted = deaths
        self.meanwhile = None
        self.kept = []

    def strike(self, request, *, least=0):  # noqa: ARG002 - as it is
        if self.meanwhile is not None:
            call, self.meanwhile = self.meanwhile, None
            call()
        return self.deaths_noted

    def end(self, request, reason):
        self.kept.append((request, reason))


@pytest.fixture
def requests():
    """Two, both in the worker's hands."""
    made = [Swept(), Swept()]
    state.reserved_requests.update(made)
    yield made
    state.reserved_requests.difference_update(made)


def test_a_suspect_waits_while_another_ones_note_is_being_made(requests):
    """Under gevent others go on meanwhile: two at a time would take each other's deaths."""
    first, second = requests
    suspects, admitted = Slow(), []
    suspects.meanwhile = lambda: admitted.append(suspects.admit(second, lambda: None))

    admitted.append(suspects.admit(first, lambda: None))

    assert admitted == [False, True]
    assert len(suspects._loop.waiting) == 1


def test_as_many_deaths_as_are_allowed_are(requests):
    """The note is made before the run: at the limit the last run is still to come."""
    suspects = Slow(deaths=MOST_DEATHS)

    assert suspects.admit(requests[0], lambda: None)

    assert suspects.kept == []


def test_the_end_of_another_event_lets_no_second_suspect_run(requests):
    """Ordinary events end all the time; only the suspect's own end says something of it."""
    first, second = requests
    suspects = Slow()
    assert suspects.admit(first, lambda: None)

    suspects.forgive(second)

    assert not suspects.admit(second, lambda: None)


def test_one_that_is_kept_holds_nobody_up(requests):
    """Once it is a dead letter it is no suspect, and the next one need not wait for it."""
    first, second = requests
    suspects = Slow(deaths=MOST_DEATHS + 1)
    assert not suspects.admit(first, lambda: None)
    assert suspects.kept == [(first, "killed_worker")]

    suspects.deaths_noted = 1

    assert suspects.admit(second, lambda: None)
