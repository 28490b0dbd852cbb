"""Suspects run one at a time."""

from __future__ import annotations

import pytest
from celery.worker import state

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.suspects import MOST_DEATHS, Suspects

from .doubles import Letters, a_message


class Later:
    """A loop that has things done later, and notes how many."""

    def __init__(self):
        self.waiting = []

    def later(self, _seconds, callback):
        self.waiting.append(callback)


class Swept:
    """A request that a dead worker left."""

    def __init__(self):
        self.id = "t-1"
        self.request_dict = {SWEPT_HEADER: True}


class Slow(Suspects):
    """Waits for Redis at each note, while ``meanwhile`` is what another greenlet does."""

    def __init__(self, deaths=1):
        super().__init__(None, Later())
        self.deaths_noted = deaths
        self.meanwhile = None
        self.kept = []

    def strike(self, name, *, least=0):  # noqa: ARG002 - as it is
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


class Held:
    """A request in a worker's hands; notes how it was let go."""

    def __init__(self, task_id="t-1", *, swept=True):
        self.id = task_id
        self.message = a_message(task_id=task_id)
        self.request_dict = {SWEPT_HEADER: True} if swept else {}
        self.let_go = []

    def give_back(self, reason):
        self.let_go.append(("given back", reason))

    def end_as_kept(self, reason):
        self.let_go.append(("kept", reason))


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def suspects(letters):
    return Suspects(letters, Later())


def test_an_event_that_no_worker_died_with_is_no_suspect(suspects, letters):
    """Nearly all of them: no note, no round trip, and no waiting for others."""
    assert suspects.admit(Held(), None)

    assert suspects.admit(Held("t-2", swept=False), None)

    assert letters.strikes == {"t-1": 2}


def test_a_suspect_that_asks_again_is_not_counted_again(suspects, letters):
    """Celery may ask twice before it hands a request over."""
    request = Held()
    suspects.admit(request, None)

    assert suspects.admit(request, None)

    assert letters.strikes == {"t-1": 2}


def test_a_suspect_s_run_is_noted_with_the_death_that_made_it_one(suspects, letters):
    """The first death was not noted: nobody was suspected yet."""
    request = Held()
    suspects.admit(request, None)

    assert suspects.deaths(request) == 2


def test_a_death_of_one_that_nobody_suspected_is_counted(suspects):
    """A child of the pool has died of it, a moment ago."""
    request = Held(swept=False)

    assert [suspects.deaths(request) for _ in range(2)] == [1, 2]


def test_a_suspect_runs_where_deaths_cannot_be_noted(suspects, letters, caplog):
    """The store is away: events are delivered all the same, and somebody is told."""
    letters.away = True

    assert suspects.admit(Held(), None)

    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_a_deadly_one_is_kept_as_its_event_before_it_runs_again(suspects, letters):
    """It has killed three: it is not given a fourth."""
    letters.strikes["t-1"] = MOST_DEATHS
    request = Held()

    assert not suspects.admit(request, None)

    assert letters.reasons == ["killed_worker"]
    assert request.let_go == [("kept", "killed_worker")]


def test_what_cannot_be_kept_is_given_back(suspects, letters):
    """It stays in the broker until there is a place for it."""
    letters.away = True
    request = Held()

    suspects.end(request, "killed_worker")

    ((how, _),) = request.let_go
    assert how == "given back"


def test_a_note_that_cannot_be_taken_away_holds_nobody_up(suspects, letters):
    """It expires within a day; the next suspect runs now."""
    first, second = Held(), Held("t-2")
    state.reserved_requests.update((first, second))
    suspects.admit(first, None)
    letters.away = True

    suspects.forgive(first)

    assert suspects.admit(second, None)
    state.reserved_requests.difference_update((first, second))


def test_a_suspect_that_the_worker_lost_sight_of_holds_nobody_up(suspects):
    """It is not in the worker's hands any more, so nobody will tell how it ended."""
    assert suspects.admit(Held(), None)

    assert suspects.admit(Held("t-2"), None)


def test_one_that_is_forgiven_after_the_next_was_let_by_leaves_no_note(suspects, letters):
    """A thread of the pool ends it in two steps, and the loop may come between them."""
    first, second = Held("t-1"), Held("t-2")
    state.reserved_requests.add(first)
    assert suspects.admit(first, print)
    state.reserved_requests.discard(first)
    assert suspects.admit(second, print)

    suspects.forgive(first)
    suspects.forgive(second)

    assert letters.strikes == {}
