"""An endpoint that is away: the worker stays calm, loses nothing, and is back soon."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from celery import Celery

from optly_celery.runtime.process import runtime_of
from optly_celery.status.verdict import collect, verdict
from optly_celery.testing.server import Answer, Server

from ..conftest import celery_app
from ..line import IMPATIENT, Line, uuids_in
from ..support import eventually, stays

QUEUE = "optimizely"
POOLS = ["threads", "prefork", "solo", "gevent"]
BUSY_S = 15.0  # what a busy machine may add to what is promised


COUNTED = """
import gc as _gc
from celery.worker.control import inspect_command as _inspect_command

_gc.disable()

@_inspect_command(name="count_tracebacks")
def _count_tracebacks(state):
    return sum(type(each).__name__ == "ExceptionInfo" for each in _gc.get_objects())
"""
"""Configuration of a worker that never collects garbage, as one that is paused hardly does."""


@pytest.fixture
def line(tmp_path):
    with Line(
        tmp_path,
        config=IMPATIENT,
        retry_backoff=0.1,
        retry_backoff_max=3,
        request_timeout="0.5,0.4",
    ) as made:
        yield made


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_pauses_in_an_outage_and_delivers_everything_after_it(line, pool):
    """Posts stop but for probes, the queue is left alone, and then every event comes once."""
    uuids = [f"u-{n}" for n in range(300)]
    line.collector.down = Answer(503)
    worker = line.work("-c", "4", pool=pool)
    line.dispatch(uuids)
    eventually(lambda: _paused(line), what="paused")

    eventually(lambda: _held(line) <= 1, what=lambda: f"held {_held(line)}")
    seen = len(line.collector.received)
    eventually(lambda: len(line.collector.received) >= seen + 2, what="probes")
    assert line.broker.client().llen(QUEUE) >= len(uuids) - 10
    assert _inspect(line).ping()

    line.collector.down = None
    line.all_delivered(uuids)

    attempts = Counter(uuids_in(r.body for r in line.collector.received))
    # In flight when it began, and the probes, of which there is one a second at most.
    assert sum(attempts.values()) - len(uuids) <= 40
    eventually(lambda: not _paused(line))
    assert f"{_host(line)} paused: http_503" in worker.output()
    assert f"{_host(line)} resumed: http_503" in worker.output()
    assert "Traceback" not in worker.output()  # a line says as much


def test_answers_errors_then_refuses_then_hangs(line):
    """Each kind of outage goes over into the next without a gap in the pause."""
    uuids = [f"u-{n}" for n in range(200)]
    line.collector.down = Answer(503)
    worker = line.work("-c", "8")
    line.dispatch(uuids)
    eventually(lambda: "paused: http_503" in worker.output())
    first, port = line.collector, _port(line.collector)

    first.stop()
    eventually(lambda: _reasons(line) == {"connection_error"})
    line.collector = Server(port=port)
    line.collector.down = Answer(503, {}, 2.0)  # longer than the worker waits for an answer
    line.collector.start()
    eventually(lambda: _reasons(line) == {"timeout"})
    line.collector.down = None

    line.all_delivered(uuids)
    assert len(first.received) + len(line.collector.received) - len(uuids) <= 30
    assert worker.output().count(" paused: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("down", [Answer(503), Answer(None)], ids=["503", "no answer"])
def test_nothing_is_kept_in_memory_of_attempts_that_failed(tmp_path, down):
    """Half a megabyte each, by the time Celery and billiard have made their tracebacks."""
    patient = IMPATIENT.replace('": 4', '": 300')
    with Line(tmp_path, config=patient + COUNTED, retry_backoff=60, retry_backoff_max=60) as line:
        line.collector.down = down
        line.work("-c", "16", "--prefetch-multiplier", "4")
        line.dispatch([f"u-{n}" for n in range(200)])
        eventually(lambda: _paused(line) and len(line.collector.received) >= 5)

        eventually(lambda: _held(line) <= 1, what="given back")
        eventually(lambda: _ask(line, "count_tracebacks") <= 3, what="forgotten")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_minute_of_outage_with_a_long_queue(tmp_path):
    """Flat memory, few requests, no attempt burnt but by probes, and all delivered after it.

    How fast, beside the plain task: benchmarks/outage.py.
    """
    count = 8_000
    uuids = [f"u-{n}" for n in range(count)]
    with Line(tmp_path) as line:
        line.dispatch(uuids)
        worker = line.work()
        seen, port = line.collector.received, _port(line.collector)
        eventually(lambda: len(seen) >= 2_000)
        memory_mb = [_rss_mb(worker)]  # has delivered: every thread is there, and connected

        def answers():
            memory_mb.append(_rss_mb(worker))
            return _inspect(line).ping()

        collectors = [line.collector]
        line.collector.down = Answer(503)
        began = time.monotonic()
        eventually(lambda: "paused: http_503" in worker.output())
        paused = time.monotonic() + 1
        for begin in (began + 20, began + 40, began + 60):
            stays(answers, for_s=begin - time.monotonic(), what="the worker answers")
            if begin == began + 20:
                collectors[-1].stop()
            elif begin == began + 40:
                collectors.append(Server(port=port))
                collectors[-1].down = Answer(503, {}, 20.0)
                collectors[-1].start()
        line.collector, healed = collectors[-1], time.monotonic()
        line.collector.down = None
        probes = sum(paused <= r.at < healed for c in collectors for r in c.received)

        def delivered():
            return [r for c in collectors for r in c.received if r.answer.status == 204]

        # To read bodies meanwhile would slow the collector down, which is in this process.
        eventually(lambda: len(delivered()) >= count and line.is_empty(), timeout_s=200)
        assert len({*uuids_in(r.body for r in delivered())}) == count
        back_s = min(r.at for r in delivered() if r.at > healed) - healed
        extra = sum(len(c.received) for c in collectors) - count
        print(
            f"memory {memory_mb[0]:.0f} MB, at most {max(memory_mb):.0f} MB; {probes} probes; "
            f"first delivery after {back_s:.1f} s; {extra} requests more than events"
        )
        assert max(memory_mb) - memory_mb[0] <= 30
        assert 1 <= probes <= 20  # after 1, 2, 4, 8 s, then every 15
        assert back_s <= 16 + BUSY_S
        assert extra <= 200
        assert not line.dead.count_by_reason()


@pytest.mark.parametrize("wait_s", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_retry_after_is_kept_to_by_the_whole_worker(tmp_path, wait_s):
    """One 429 that names a time: nothing is posted until then, then everything."""
    uuids = [f"u-{n}" for n in range(100)]
    with Line(tmp_path, retry_backoff_max=60) as line:
        line.collector.script(Answer(429, {"Retry-After": str(wait_s)}))
        worker = line.work("-c", "4")
        line.dispatch(uuids[:1])
        eventually(lambda: "paused: http_429" in worker.output())
        line.dispatch(uuids[1:])

        line.all_delivered(uuids)

        told, *later = [r.at for r in line.collector.received]
        assert later[0] - told >= wait_s
        assert later[0] - told <= wait_s * 1.1 + BUSY_S
        assert len(line.collector.received) == len(uuids) + 1


@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "gevent"))]
)
def test_one_host_down_leaves_the_other_alone(tmp_path, tls, pool):
    """Events for the one that is well flow; the others are parked, outlive a kill, and come."""
    down = [f"down-{n}" for n in range(150)]
    well = [f"well-{n}" for n in range(150)]
    settings = {
        "allowed_hosts": "127.0.0.1,localhost",
        "retry_backoff": 0.1,
        "retry_backoff_max": 2,
    }
    with (
        Line(
            tmp_path, config=IMPATIENT, url_override="", request_timeout="0.5,1", **settings
        ) as line,
        Server(tls=tls) as broken,
        Server(tls=tls) as sound,
    ):
        broken_url, sound_url = broken.url, sound.url.replace("127.0.0.1", "localhost")
        worker = line.work("-c", "4", pool=pool)
        line.dispatch(well[:1], sound_url)
        eventually(lambda: sound.received)
        broken.down = Answer(503)
        for bad, good in zip(down, [*well[1:], None], strict=True):
            line.dispatch([bad], broken_url)
            if good:
                line.dispatch([good], sound_url)

        eventually(lambda: set(well) <= {*uuids_in(r.body for r in sound.received)})
        parked = f"{QUEUE}.parked.{broken_url.split('/')[2]}"
        client = line.broker.client()
        eventually(
            lambda: client.llen(parked) >= len(down) - 10, what=lambda: f"{client.llen(parked)}"
        )
        assert len(broken.received) <= 20
        assert f"{broken_url.split('/')[2]} paused" in worker.output()

        worker.kill()
        again = line.work("-c", "4", pool=pool)
        eventually(lambda: "paused: parked" in again.output())
        broken.down = None

        eventually(
            lambda: (
                set(down) <= {*uuids_in(r.body for r in broken.received if r.answer.status == 204)}
            )
        )
        eventually(lambda: line.is_empty() and not client.llen(parked))


def test_a_queue_that_a_person_cancelled_stays_cancelled(line):
    """Neither the pause nor its end takes it up again; add_consumer does."""
    uuids = [f"u-{n}" for n in range(60)]
    line.collector.down = Answer(503)
    worker = line.work("-c", "4")
    line.dispatch(uuids)
    eventually(lambda: "paused: http_503" in worker.output())
    eventually(lambda: _held(line) <= 1)
    control = _inspect(line).app.control
    control.cancel_consumer(QUEUE, reply=True, limit=1, timeout=5)
    # Whatever probe was under way has ended, when the next one is overdue and has not come.
    line.collector.down = None
    seen = len(line.collector.received)
    stays(lambda: len(line.collector.received) <= seen + 1, for_s=3)
    assert line.broker.client().llen(QUEUE) >= len(uuids) - 12

    control.add_consumer(QUEUE, reply=True, limit=1, timeout=5)
    line.all_delivered(uuids)


def test_a_pause_outlives_the_broker(line):
    """Redis is killed and comes back: no stampede, and everything after the outage."""
    uuids = [f"u-{n}" for n in range(150)]
    line.collector.down = Answer(503)
    worker = line.work("-c", "4")
    line.dispatch(uuids)
    eventually(lambda: "paused: http_503" in worker.output())
    eventually(lambda: _held(line) <= 1)
    line.broker.kill()
    line.broker.start()
    eventually(lambda: "Connection to broker lost" in worker.output())
    before = len(line.collector.received)
    eventually(lambda: len(line.collector.received) > before)
    assert len(line.collector.received) <= before + 3
    assert worker.output().count(" paused: ") == 1

    line.collector.down = None
    line.all_delivered(uuids)


def test_the_pause_is_seen(line):
    """By a monitor, and by `status`."""
    line.collector.down = Answer(503)
    with line.watch:
        line.work("-c", "4")
        line.dispatch([f"u-{n}" for n in range(30)])
        eventually(lambda: _heard(line, "worker-optimizely-paused"))
        with celery_app(line.broker.url) as app:
            found = collect(runtime_of(app), timeout_s=3)
        line.collector.down = None
        eventually(lambda: _heard(line, "worker-optimizely-resumed"))
    host = line.collector.url.split("/")[2]
    assert _heard(line, "worker-optimizely-paused")[0]["host"] == host
    (worker,) = found.workers
    assert worker.consumes
    assert worker.paused == (f"{host} (http_503, paused)",)
    assert not verdict(found).healthy


def test_the_only_event_comes_when_its_time_has_come(line):
    """Nobody else can be the probe, wherever it waits: the pause may begin after its receipt."""
    line.collector.script(Answer(503, {"Retry-After": "2"}))
    line.work("-c", "4")
    line.dispatch(["u-1"])
    eventually(lambda: _paused(line))
    line.all_delivered(["u-1"])
    first, second = line.collector.received
    assert 2 <= second.at - first.at < 2 + BUSY_S


def _port(collector):
    return int(collector.url.rsplit(":", 1)[1].split("/")[0])


def _rss_mb(worker):
    """The worker's resident memory; with threads it is one process."""
    fields = Path(f"/proc/{worker.process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _heard(line, kind):
    return [event for event in line.watch.heard if event["type"] == kind]


def _reasons(line):
    return {fact["reason"] for fact in _paused(line)}


def _held(line):
    return line.broker.client().hlen("unacked")


def _host(line):
    return line.collector.url.split("/")[2]


def _inspect(line):
    app = Celery("look", broker=line.broker.url, set_as_current=False)
    return app.control.inspect(timeout=3)


def _paused(line):
    """What the one worker says that it has paused."""
    return [told for told in _ask(line, "optimizely_pauses") or [] if "host" in told]


def _ask(line, command):
    """What the one worker answers; None where it does not."""
    app = Celery("look", broker=line.broker.url, set_as_current=False)
    try:
        replies = app.control.broadcast(command, reply=True, limit=1, timeout=5)
        return next((answer for reply in replies for answer in reply.values()), None)
    finally:
        app.close()
