"""The verdict over what was found out."""

from __future__ import annotations

import pytest

from optly_celery.status.questions import WorkerStatus
from optly_celery.status.verdict import Status, verdict

GOOD = WorkerStatus("celery@a", consumes=True, knows_task=True)
ELSEWHERE = WorkerStatus("celery@b", consumes=False, knows_task=True)
BLIND = WorkerStatus("celery@c", consumes=True, knows_task=False)
PAUSED = WorkerStatus("celery@d", True, True, ("logx.optimizely.com (http_503, paused)",))

STUCK = WorkerStatus("celery@e", True, True, late=3)


def status(**changes):
    usual = {"broker": "redis://b", "queue": "optimizely", "waiting": 3, "unacked": 2,
             "workers": (GOOD,), "dead_letters": {}, "expired": 0}  # fmt: skip
    return Status(**usual | changes)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (status(), "healthy: 1 worker on optimizely"),
        (status(workers=(GOOD, ELSEWHERE)), "healthy: 1 worker on optimizely"),
        (status(workers=(GOOD, GOOD)), "healthy: 2 workers on optimizely"),
        (
            status(dead_letters={"http_400": 1200, "http_413": 1}),
            "healthy: 1 worker on optimizely; 1,201 dead letters kept for a person",
        ),
        (status(waiting=1_000_000), "healthy: 1 worker on optimizely"),
        (
            status(workers=(PAUSED,), asked="celery@d", dead_letters=None),
            "healthy: 1 worker on optimizely; it has paused logx.optimizely.com (http_503, paused)",
        ),
    ],
)
def test_events_that_get_delivered_are_healthy(found, text):
    """Dead letters are mentioned, but are as safe as can be; a long queue may be a burst.

    A worker that alone is asked is well while it waits for an endpoint: no restart mends that one.
    """
    assert verdict(found).healthy
    assert verdict(found).text == text


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (status(workers=()), "no worker answers"),
        (status(workers=(), can_ask=False), "worker_enable_remote_control is off"),
        (status(workers=(ELSEWHERE,)), "no worker consumes the queue optimizely"),
        (status(workers=(PAUSED,)), "celery@d has paused logx.optimizely.com (http_503, paused)"),
        (status(workers=(GOOD, BLIND)), "celery@c would lose events"),
        (status(workers=(GOOD, STUCK)), "celery@e does not come back from 3 events: restart it"),
        (status(workers=(STUCK,), asked="celery@e"), "celery@e does not come back from 3 events"),
        (status(workers=None, unanswered=("the broker is out of memory",)), "is out of memory"),
        (
            status(dead_letters=None, unanswered=("the dead letter store …",)),
            "the dead letter store",
        ),
        (Status(broker="b", queue="q", unanswered=("the broker b cannot be reached",)), "reached"),
    ],
)
def test_events_that_do_not_get_delivered_are_unhealthy(found, says):
    """One line says all that is wrong."""
    assert not verdict(found).healthy
    assert verdict(found).text.startswith("unhealthy: ")
    assert says in verdict(found).text


def test_a_worker_that_is_not_to_be_asked_is_not_taken_for_dead():
    """Whoever restarts it on this verdict would restart one that delivers."""
    found = verdict(status(workers=None, asked="celery@a", can_ask=False, dead_letters=None))

    assert found.healthy
    assert found.text.startswith("unknown: the broker answers")
    assert "worker_enable_remote_control is off" in found.text


def test_a_document_holds_status_and_verdict():
    """What could not be found out is null, and not zero."""
    known = status(dead_letters={"http_400": 2}).as_dict()
    unknown = Status(
        broker="b", queue="q", unanswered=("the broker b cannot be reached",)
    ).as_dict()

    assert known["healthy"] is True
    assert known["dead_letters"] == 2
    assert known["workers"] == [
        {"name": "celery@a", "consumes": True, "knows_task": True, "paused": (), "late": 0}
    ]
    assert (unknown["healthy"], unknown["waiting"], unknown["workers"]) == (False, None, None)
    assert (unknown["dead_letters"], unknown["dead_letters_by_reason"]) == (None, None)
    assert status(workers=()).as_dict()["workers"] == []
