"""When a task is to stop before its event is settled."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import pytest
from celery.signals import worker_shutting_down

from optly_celery.worker import ending
from optly_celery.worker.ending import interruption, is_ending, watch


@pytest.fixture(autouse=True)
def fresh():
    """No worker of another test is ending here, and none of these is afterwards."""
    ending._shared.clear()
    yield
    ending._shared.clear()


class Clock:
    """Stands until it is told what time it is."""

    now = 1000.0

    def __call__(self):
        return self.now


def limits(task_s=180.0, post_s=13.0, visibility_s=360.0):
    return SimpleNamespace(
        longest_task_s=task_s, longest_post_s=post_s, visibility_timeout_s=visibility_s
    )


def last_start(received_at, **fields):
    """How many seconds after its begin a task makes its last POST, found by looking."""
    clock = Clock()
    look = interruption(limits(**fields), received_at, clock)
    tenths = 0
    while look() is None:
        tenths += 1
        clock.now = 1000.0 + tenths / 10
    assert look() == "task_deadline"
    return (tenths - 1) / 10


@pytest.mark.parametrize(
    ("waited_s", "seconds"),
    [
        (0.0, 167.0),  # half of the visibility timeout, less one POST
        (100.0, 167.0),
        (144.0, 167.0),  # nine tenths of it are left for what has waited as long as this
        (244.0, 67.0),
        (300.0, 11.0),
        (311.0, 0.0),
        (400.0, -0.1),  # over at once: the first POST is made without asking
    ],
)
def test_a_task_ends_before_the_broker_gives_its_message_to_another(waited_s, seconds):
    """Counted from its receipt, since when the broker waits: a retry waits out its backoff here."""
    assert last_start(1000.0 - waited_s) == pytest.approx(seconds, abs=0.11)


@pytest.mark.parametrize("received_at", [None, "soon", [], True, 7])
def test_a_message_without_a_time_of_receipt_gets_half_the_timeout(received_at):
    """What a sender wrote is no time of ours."""
    assert last_start(received_at) == pytest.approx(167.0, abs=0.11)


def test_a_broker_that_waits_for_ever_has_a_task_end_too():
    """Or a worker's slot could be gone for good."""
    assert last_start(1.0, visibility_s=None) == pytest.approx(167.0, abs=0.11)


def test_no_worker_is_ending_where_there_is_none():
    """A task that is called in an app, or by a test."""
    assert not is_ending()
    assert interruption(limits(), None)() is None


@pytest.mark.parametrize("how", ["Warm", "Cold"])
def test_a_worker_that_was_told_to_end_makes_no_other_post(how):
    """Whatever time its task has left."""
    watch()
    look = interruption(limits(), None)
    assert look() is None

    worker_shutting_down.send(sender="w", sig="SIGTERM", how=how, exitcode=0)

    assert look() == "shutdown"


def test_a_child_of_a_pool_knows_that_its_worker_ends():
    """It gets none of the worker's signals."""
    watch()
    fork = multiprocessing.get_context("fork")
    told, answers = fork.Event(), fork.Queue()

    def child():
        answers.put(is_ending())
        told.wait(30)
        answers.put(is_ending())

    process = fork.Process(target=child)
    process.start()
    assert answers.get(timeout=30) is False
    worker_shutting_down.send(sender="w", sig="SIGTERM", how="Warm", exitcode=0)
    told.set()

    assert answers.get(timeout=30) is True
    process.join(30)


def test_a_second_worker_in_one_process_does_not_end_with_the_first():
    """As in tests, which start one after the other."""
    watch()
    worker_shutting_down.send(sender="w", sig="SIGTERM", how="Warm", exitcode=0)

    watch()

    assert not is_ending()
