"""The worker's image among real containers, on pytest-celery's fixtures: no event is lost."""

from __future__ import annotations

import pytest

from optly_celery import dispatch, stats

from ..support import US_URL, eventually, params_of
from .engine import docker

EVENTS = [f"u-{number}" for number in range(40)]


def enqueue(uuids):
    for uuid in uuids:
        dispatch(US_URL, params_of(uuid=uuid))


def in_redis(setup):
    """How many events wait, and how many a worker holds."""
    client = setup.broker.container.client
    try:
        return client.llen("optimizely"), client.hlen("unacked")
    finally:
        client.close()


def nothing_is_left(setup):
    eventually(lambda: in_redis(setup) == (0, 0), what="an empty queue, and nothing unacked")
    assert stats()["dropped"] == {}


def test_events_make_the_round_trip(collector, celery_setup):
    """From the dispatcher through Redis and the worker to the collector, each once."""
    enqueue(EVENTS)

    assert set(collector.has_all(EVENTS).values()) == {1}
    nothing_is_left(celery_setup)


def test_a_collector_that_fails_gets_each_event_in_the_end(collector, celery_setup):
    """Retried with backoff, in the container as anywhere.

    A short trouble: in a longer one the worker pauses, and asks with single events.
    """
    collector.script(*[(503, 0)] * 8, *[(429, 0)] * 2)
    enqueue(EVENTS)

    assert set(collector.has_all(EVENTS).values()) == {1}
    assert [status for status, _ in collector.posts].count(503) == 8
    nothing_is_left(celery_setup)


def test_a_worker_killed_amid_its_posts_loses_nothing(collector, celery_setup):
    """SIGKILL to the container; once it runs again, everything arrives."""
    collector.script(*[(503, 4)] * 20)
    enqueue(EVENTS)
    eventually(lambda: len(collector.posts) >= 20)
    collector.script()

    celery_setup.worker.kill()
    assert in_redis(celery_setup)[1] > 0
    docker("start", celery_setup.worker.container.id)

    collector.has_all(EVENTS)
    nothing_is_left(celery_setup)


def test_a_worker_that_is_restarted_loses_nothing(collector, celery_setup):
    """What it had begun and was refused meanwhile, and what is enqueued while it is away."""
    collector.script(*[(503, 3)] * 20)
    enqueue(EVENTS[:20])
    eventually(lambda: len(collector.posts) >= 20)
    collector.script()

    docker("stop", "--time", "30", celery_setup.worker.container.id)
    assert not collector.delivered
    enqueue(EVENTS[20:])
    docker("start", celery_setup.worker.container.id)

    collector.has_all(EVENTS)
    nothing_is_left(celery_setup)


def test_a_redis_that_is_restarted_loses_nothing(collector, celery_setup):
    """What it had is in its append-only file, and the worker finds it again."""
    collector.script(*[(503, 0.2)] * 40)
    enqueue(EVENTS[:20])
    eventually(lambda: collector.posts)

    celery_setup.broker.restart()
    # Another port: the engine has published it anew.
    eventually(celery_setup.broker.container.ready)
    collector.script()  # or, asked with single events, it would take minutes to recover
    runtime_of_a_process_that_starts_now()
    enqueue(EVENTS[20:])

    collector.has_all(EVENTS)
    nothing_is_left(celery_setup)


def runtime_of_a_process_that_starts_now():
    from optly_celery.runtime import process as runtime

    runtime.close(0)
    runtime._counters = runtime.Counters()


class TestTwoWorkers:
    """Two containers, one queue."""

    @pytest.fixture
    def celery_worker_cluster(self, two_workers):
        return two_workers

    def test_two_workers_share_the_queue(self, collector, celery_setup):
        """One takes no more than it can hold: a late one has its part; each event is there once."""
        uuids = [f"u-{number}" for number in range(400)]
        collector.script(*[(204, 2)] * 400)
        late = celery_setup.worker_cluster[1].container.id
        docker("pause", late)
        enqueue(uuids)
        eventually(lambda: len(collector.posts) > 96, what="a second round of POSTs by the first")
        docker("unpause", late)

        assert set(collector.has_all(uuids).values()) == {1}
        nothing_is_left(celery_setup)
        shares = [node.logs().count(" succeeded in ") for node in celery_setup.worker_cluster]
        assert min(shares) > 0


def test_a_worker_that_is_told_to_stop_finishes_its_posts(collector, celery_setup):
    """SIGTERM reaches Celery; what it had begun is delivered, the rest is in the queue, at once."""
    uuids = [f"u-{number}" for number in range(200)]
    collector.script(*[(204, 3)] * 200)
    enqueue(uuids)
    eventually(lambda: len(collector.posts) >= 64)

    container = celery_setup.worker.container
    docker("stop", "--time", "30", container.id)

    assert docker("inspect", "-f", "{{.State.ExitCode}}", container.id) == "0"
    begun = sum(collector.delivered.values())
    assert in_redis(celery_setup) == (200 - begun, 0)
    collector.script()
    docker("start", container.id)
    assert set(collector.has_all(uuids).values()) == {1}
    nothing_is_left(celery_setup)
