"""Workers that are killed, stopped or cut off at any moment: no event is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import kombu
import pytest

from optly_celery.testing.server import Answer

from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line, uuids_in
from ..support import eventually, stays

SLOTS = 8
EVENTS = [f"u-{n}" for n in range(60)]


HELD_S = 2.5  # how long the endpoint holds an answer: enough for a busy machine to look twice


@pytest.fixture
def line(tmp_path):
    with Line(tmp_path, config=IMPATIENT, **IMPATIENT_SETTINGS) as made:
        yield made


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize(
    ("moment", "processes"),
    [("before", 1), ("during", SLOTS), ("after", SLOTS)],
    ids=["before the POST", "during the POST", "after the POST"],
)
def test_a_killed_worker_loses_nothing(line, pool, moment, processes):
    """SIGKILL, and the next worker delivers every event within the visibility timeout.

    Before the POST: all but one wait for their turn. During: the endpoint will not have taken
    them. After: it has, and the worker is stopped from acking. While it receives, see
    test_redis_transport.py.
    """
    client = line.broker.client()
    share = SLOTS // processes
    worker = line.work("-c", str(processes), "--prefetch-multiplier", str(share), pool=pool)
    line.collector.down = Answer(204 if moment == "after" else 503, {}, HELD_S)
    line.dispatch(EVENTS)
    eventually(lambda: len(line.collector.received) == processes)
    eventually(lambda: client.hlen("unacked") == SLOTS)

    if moment == "after":
        worker.signal(signal.SIGSTOP, group=True)
        answered = line.collector.received[-1].at + HELD_S + 0.1
        stays(lambda: client.hlen("unacked") == SLOTS, for_s=answered - time.monotonic())
    worker.kill()
    assert client.hlen("unacked") == SLOTS
    line.collector.down = None
    line.work("-c", "4", pool=pool)

    taken = line.all_delivered(EVENTS)
    if kombu.VERSION >= (5, 7):  # before, an ack in a threads pool waits for up to a second
        assert sum(taken.values()) - len(EVENTS) <= processes


def test_a_killed_child_costs_one_attempt(line):
    """A child of a prefork pool dies in the middle of its POST; its event goes on at once."""
    worker = line.work("-c", "2", "--prefetch-multiplier", "1", pool="prefork")
    line.collector.script(Answer(503, {}, 0.8), Answer(503, {}, 0.8))
    line.dispatch(EVENTS[:20])
    eventually(lambda: len(line.collector.received) == 2)

    for child in _children(worker.process.pid):
        os.kill(child, signal.SIGKILL)

    assert set(line.all_delivered(EVENTS[:20]).values()) == {1}
    assert "WorkerLostError" in worker.output() or "exited prematurely" in worker.output()
    assert worker.process.poll() is None


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_that_is_told_to_stop_leaves_nothing_half_done(tmp_path, pool):
    """SIGTERM: POSTs in flight are finished and acked; waiting retries go back to the queue."""
    failing, slow = EVENTS[:4], EVENTS[4:8]
    seen = set()

    def answer(_method, _target, body):
        (uuid,) = uuids_in([body])
        if uuid in slow:
            return Answer(204, {}, 0.6)
        again, _ = uuid in seen, seen.add(uuid)
        return None if again else Answer(503, {"Retry-After": "3"})

    with Line(tmp_path, retry_backoff_max=3, pause_after=0) as line:
        line.collector.choose = answer
        worker = line.work("-c", "4", pool=pool)
        line.dispatch(failing)
        eventually(lambda: worker.output().count(" retry: ") == 4)
        line.dispatch(slow)
        eventually(lambda: len(line.collector.received) == 8)
        assert worker.stop() == 0
        assert line.broker.client().hlen("unacked") == 0
        assert line.broker.client().llen("optimizely") == 4

        line.work("-c", "4", pool=pool)

        taken = line.all_delivered(failing + slow)
        assert set(taken.values()) == {1}


def test_a_worker_outlives_an_ack_that_the_broker_refuses(line):
    """A key of another type at the moment of the ack: it is given again, and the worker stays."""
    worker = line.work("-c", "4")
    line.collector.script(*[Answer(204, {}, 0.4)] * 4)
    line.dispatch(EVENTS[:4])
    eventually(lambda: len(line.collector.received) == 4)
    client = line.broker.client()
    client.rename("unacked", "kept")
    client.set("unacked", "of another type")
    eventually(lambda: "acks were not taken yet" in worker.output())
    client.rename("kept", "unacked")

    line.all_delivered(EVENTS[:4])
    line.dispatch(EVENTS[4:8])
    line.all_delivered(EVENTS[:8])
    assert worker.process.poll() is None


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_broker_that_restarts_costs_no_event(line, pool):
    """Killed and started again while events are being posted and others wait."""
    worker = line.work("-c", "4", pool=pool)
    line.collector.script(*[Answer(204, {}, 0.5)] * 4)
    line.dispatch(EVENTS)
    eventually(lambda: len(line.collector.received) == 4)
    eventually(lambda: line.broker.client().hlen("unacked") >= 4)

    line.broker.kill()
    line.broker.start()

    line.all_delivered(EVENTS)
    assert worker.process.poll() is None


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]
