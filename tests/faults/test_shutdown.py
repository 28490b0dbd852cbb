"""A worker that is told to end, or made to, in every pool: nothing is lost, nothing waits long."""

from __future__ import annotations

import signal
import time
from collections import defaultdict

import pytest

from optly_celery.testing.server import Answer

from ..line import Line, uuids_in
from ..support import eventually

POOLS = ["threads", "prefork", "solo", "gevent"]
SLOTS = 4

STOP_LIMIT_S = 15.0
"""What a worker is given to end: Celery's soft shutdown, as in the standalone configuration."""
SWEEP_LIMIT_S = 15.0
"""How long after the visibility timeout a killed worker's events come back, at the latest."""
SLACK_S = 10.0  # a busy machine, the start of the next worker

HELD = [f"held-{n}" for n in range(4)]
BUSY = [f"busy-{n}" for n in range(4)]
SLOW = [f"slow-{n}" for n in range(SLOTS)]
IN_LINE = [f"line-{n}" for n in range(12)]
ALL = HELD + BUSY + SLOW + IN_LINE


def config_of(visibility_timeout_s):
    return (
        "from optly_celery.celeryconfig import broker_transport_options as _usual\n"
        f"broker_transport_options = {{**_usual, 'visibility_timeout': {visibility_timeout_s}}}\n"
    )


class Endpoint:
    """Answers each kind of event in its own way until it is well."""

    def __init__(self):
        self.well = False

    def __call__(self, _method, _target, body):
        if self.well:
            return None
        kind = uuids_in([body])[0].split("-")[0]
        return {
            "held": Answer(503, {"Retry-After": "8"}),  # waits for its time in the worker
            "busy": Answer(503),  # is being published again, now and then
            "slow": Answer(204, {}, 1.5),  # is in the middle of its POST
        }.get(kind)


def in_full_swing(line, pool, queues="optimizely"):
    """A worker with retries that wait, retries that come and go, POSTs under way and a queue."""
    worker = line.work("-c", str(SLOTS), "--prefetch-multiplier", "2", "-Q", queues, pool=pool)
    line.dispatch(HELD + BUSY)
    eventually(lambda: all(worker.output().count(" retry: ") >= 8 and line.posts(u) for u in HELD))
    line.dispatch(SLOW + IN_LINE)
    under_way = 1 if pool == "solo" else SLOTS
    eventually(lambda: sum(len(line.posts(u)) for u in SLOW) >= under_way)
    return worker


def delivered(line):
    """Bodies that were answered 2xx, by uuid."""
    found = defaultdict(list)
    for request in line.collector.received:
        if request.answer.status == 204:
            found[uuids_in([request.body])[0]].append(request.body)
    return found


def assert_all_delivered(line, *, within_s, most_duplicates):
    started = time.monotonic()
    eventually(
        lambda: set(delivered(line)) == set(ALL) and line.is_empty(),
        timeout_s=within_s,
        what=lambda: f"missing {set(ALL) - set(delivered(line))}",
    )
    bodies = delivered(line)
    assert all(len(set(same)) == 1 for same in bodies.values()), "a duplicate is the same bytes"
    assert not list(line.dead.list())
    duplicates = sum(len(same) - 1 for same in bodies.values())
    print(f"duplicates: {duplicates}, all delivered {time.monotonic() - started:.1f} s later")
    assert duplicates <= most_duplicates


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("told", ["SIGTERM", "SIGQUIT", "SIGTERM, remapped to SIGQUIT"])
def test_a_worker_that_is_told_to_end_hands_everything_on(tmp_path, monkeypatch, pool, told):
    """Within the soft shutdown's limit, and the next worker need not wait for any timeout."""
    name, _, remapped = told.partition(",")
    if remapped:
        monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")  # Celery's own switch, for `docker stop`
    settings = {"retry_backoff": 0.2, "retry_backoff_max": 8, "request_timeout": "0.5,4"}
    settings |= {"pause_after": 0}  # what fails here is to be retried, not to pause the worker
    with Line(tmp_path, config=config_of(300), **settings) as line:
        endpoint = line.collector.choose = Endpoint()
        worker = in_full_swing(line, pool)

        asked = time.monotonic()
        worker.signal(signal.Signals[name])
        worker.process.wait(STOP_LIMIT_S + SLACK_S)
        print(f"{pool}: ended after {time.monotonic() - asked:.1f} s")

        client = line.broker.client()
        assert client.hlen("unacked") == 0, "nothing is left to the visibility timeout"
        endpoint.well = True
        line.work("-c", str(SLOTS), pool=pool)
        # A solo pool sits out the soft shutdown in the middle of its POST, which then is too late.
        most = int(pool == "solo" and "SIGQUIT" in told)
        assert_all_delivered(line, within_s=8 + SLACK_S, most_duplicates=most)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "queues"),
    [*((pool, "optimizely") for pool in POOLS), *((pool, "optimizely,celery") for pool in POOLS)],
)
def test_a_killed_workers_events_are_back_within_the_visibility_timeout_and_15_s(
    tmp_path, pool, queues
):
    """SIGKILL with everything under way, and another worker that idles meanwhile."""
    timeout_s = 6
    settings = {"retry_backoff": 0.2, "retry_backoff_max": 1, "request_timeout": "0.5,4"}
    settings |= {"pause_after": 0}  # what fails here is to be retried, not to pause the worker
    with Line(tmp_path, config=config_of(timeout_s), **settings) as line:
        endpoint = line.collector.choose = Endpoint()
        worker = in_full_swing(line, pool, queues)
        worker.kill()
        killed = time.monotonic()
        endpoint.well = True
        line.work("-c", str(SLOTS), "-Q", queues, pool=pool)

        limit_s = timeout_s + SWEEP_LIMIT_S - (time.monotonic() - killed)
        assert_all_delivered(line, within_s=limit_s, most_duplicates=SLOTS * 2)
        print(f"{pool}: all back {time.monotonic() - killed:.1f} s after SIGKILL")
