"""The verdict over what was found out."""

from __future__ import annotations

import pytest

from optly_celery.status.questions import WorkerFacts
from optly_celery.status.verdict import Facts, verdict

GOOD = WorkerFacts("celery@a", consumes=True, knows_task=True)
ELSEWHERE = WorkerFacts("celery@b", consumes=False, knows_task=True)
BLIND = WorkerFacts("celery@c", consumes=True, knows_task=False)
PAUSED = WorkerFacts("celery@d", True, True, ("logx.optimizely.com (http_503, paused)",))


def facts(**changes):
    usual = {"broker": "redis://b", "queue": "optimizely", "waiting": 3, "unacked": 2,
             "workers": (GOOD,), "dead_letters": {}, "expired": 0}  # fmt: skip
    return Facts(**usual | changes)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (facts(), "healthy: 1 worker on optimizely"),
        (facts(workers=(GOOD, ELSEWHERE)), "healthy: 1 worker on optimizely"),
        (facts(workers=(GOOD, GOOD)), "healthy: 2 workers on optimizely"),
        (
            facts(dead_letters={"http_400": 1200, "http_413": 1}),
            "healthy: 1 worker on optimizely; 1,201 dead letters kept for a person",
        ),
        (facts(waiting=1_000_000), "healthy: 1 worker on optimizely"),
        (
            facts(workers=(PAUSED,), asked="celery@d", dead_letters=None),
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
        (facts(workers=()), "no worker answers"),
        (facts(workers=(ELSEWHERE,)), "no worker consumes the queue optimizely"),
        (facts(workers=(PAUSED,)), "celery@d has paused logx.optimizely.com (http_503, paused)"),
        (facts(workers=(GOOD, BLIND)), "celery@c would lose events"),
        (facts(workers=None, trouble=("the broker is out of memory",)), "is out of memory"),
        (facts(dead_letters=None, trouble=("the dead letter store …",)), "the dead letter store"),
        (Facts(broker="b", queue="q", trouble=("the broker b cannot be reached",)), "reached"),
    ],
)
def test_events_that_do_not_get_delivered_are_unhealthy(found, says):
    """One line says all that is wrong."""
    assert not verdict(found).healthy
    assert verdict(found).text.startswith("unhealthy: ")
    assert says in verdict(found).text


def test_a_document_holds_facts_and_verdict():
    """What could not be found out is null, and not zero."""
    known = facts(dead_letters={"http_400": 2}).as_dict()
    unknown = Facts(broker="b", queue="q", trouble=("the broker b cannot be reached",)).as_dict()

    assert known["healthy"] is True
    assert known["dead_letters"] == 2
    assert known["workers"] == [
        {"name": "celery@a", "consumes": True, "knows_task": True, "paused": ()}
    ]
    assert (unknown["healthy"], unknown["waiting"], unknown["workers"]) == (False, None, None)
    assert (unknown["dead_letters"], unknown["dead_letters_by_reason"]) == (None, None)
    assert facts(workers=()).as_dict()["workers"] == []
