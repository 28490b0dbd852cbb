"""An endpoint that takes its time: no thread is gone for good, no event is delivered twice."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from optly_celery.dead_letters.letter import Filter
from optly_celery.event.event import Event
from optly_celery.runtime.process import runtime_of
from optly_celery.testing.server import Answer

from ..commands import invoke
from ..conftest import celery_app
from ..line import Line, batch_of, uuids_in
from ..support import US_URL, eventually
from ..unit.deliver.raw_server import RawServer, drip

POOLS = [
    "threads",
    *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "solo", "gevent")),
]
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
SLACK_S = 15.0  # a busy machine, and the worker's own end
PREFORK_S = 30.0
"""How much longer Celery's prefork pool may take: a child whose result came as the pool was closed
waits so long for somebody to read it, and its message is handed out again."""

QUICK = {"retry_backoff": 0.1, "retry_backoff_max": 0.4, "pause_after": 0}


def config_of(visibility_timeout_s):
    return (
        "broker_transport_options = {\n"
        f'    "visibility_timeout": {visibility_timeout_s}, "unacked_restore_interval": 0.25,\n'
        '    "unacked_restore_throttle": 1, "unacked_restore_limit": 100,\n'
        '    "unacked_mutex_expire": 1,\n'
        "}\n"
    )


def publish(line, params):
    """Put one event, such as a batch, into the queue."""
    with celery_app(line.broker.url) as app:
        runtime_of(app).publisher.publish(Event.of(US_URL, params))


def refusing(guilty, refusal_s):
    """Refuse whatever holds a guilty visitor, and take so long for it."""
    marks = [f'"{name}"'.encode() for name in guilty]

    def choose(_method, _target, body):
        is_bad = any(mark in body for mark in marks)
        return Answer(400, delay_s=refusal_s) if is_bad else None

    return choose


def sizes(line):
    """How many events each POST held, in order."""
    return [len(uuids_in([request.body])) for request in line.collector.received]


def posts_needed(count, guilty):
    """What splitting takes where nothing comes in between: the same halves."""

    def settle(start, end):
        here = sum(start <= n < end for n in guilty)
        if not here or end - start == 1:
            return 1
        middle = start + (end - start) // 2
        return 1 + settle(start, middle) + settle(middle, end)

    return settle(0, count)


@pytest.mark.parametrize("pool", POOLS)
def test_a_batch_whose_refusals_are_slow_is_delivered_once(tmp_path, pool):
    """It takes longer than the visibility timeout in all, and another worker stands by.

    No task takes longer than half of that, so nobody is handed what another one is splitting; and
    each goes on where the last one stopped, so no POST is made twice.
    """
    names = [f"v-{n}" for n in range(40)]
    guilty = [3, 17, 18, 39]
    with Line(tmp_path, config=config_of(5), request_timeout="0.5,1", **QUICK) as line:
        line.collector.choose = refusing([names[n] for n in guilty], 0.4)
        for _ in range(2):
            line.work("-c", "1", pool=pool)
        publish(line, batch_of(*names))

        started = time.monotonic()
        good = {f"u-v-{n}" for n in range(40) if n not in guilty}
        assert line.all_delivered(good) == Counter(good), "each once"
        took_s = time.monotonic() - started

        letters = list(line.dead.list())
        assert sorted(uuids_in([line.kept(one).body])[0] for one in letters) == sorted(
            f"u-v-{n}" for n in guilty
        )
        assert [(one.reason, one.attempts) for one in letters] == [("http_400", 1)] * 4
        needed = posts_needed(40, guilty)
        print(f"{pool}: {len(sizes(line))} POSTs, {needed} needed, {took_s:.1f} s")
        assert len(sizes(line)) == needed


def test_a_retry_that_has_waited_has_less_time(tmp_path):
    """Its message has been in the worker's hands since before its backoff, which counts as well."""
    names = [f"v-{n}" for n in range(16)]
    quick = {**QUICK, "retry_backoff": 3, "retry_backoff_max": 4.5}
    with Line(tmp_path, config=config_of(6), request_timeout="0.3,0.9", **quick) as line:
        line.collector.script(Answer(503, {"Retry-After": "5"}))
        line.collector.choose = refusing([names[7]], 0.8)
        for _ in range(2):
            line.work("-c", "1")
        publish(line, batch_of(*names))

        good = {f"u-{name}" for name in names if name != names[7]}

        assert line.all_delivered(good) == Counter(good), "each once"
        assert len(sizes(line)) == 1 + posts_needed(16, [7])


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_amid_a_split_ends_within_one_post(tmp_path, pool):
    """SIGTERM: what is left is published again at once, and no POST is made twice."""
    names = [f"v-{n}" for n in range(64)]
    with Line(tmp_path, config=config_of(300), request_timeout="0.5,3", **QUICK) as line:
        line.collector.choose = refusing(names[1::2], 0.5)
        worker = line.work("-c", "2", pool=pool)
        publish(line, batch_of(*names))
        eventually(lambda: len(sizes(line)) >= 4)

        worker.signal(signal.SIGTERM)
        asked = time.monotonic()
        worker.process.wait(3.5 + SLACK_S + PREFORK_S * (pool == "prefork"))
        print(f"{pool}: ended after {time.monotonic() - asked:.1f} s")

        posts = len(sizes(line))
        assert posts < posts_needed(64, range(1, 64, 2)) / 2, "it did not go on to the end"
        client = line.broker.client()
        waiting = client.llen("optimizely")
        assert (waiting in (1, 2 if pool == "prefork" else 1), client.hlen("unacked")) == (True, 0)
        line.collector.choose = refusing(names[1::2], 0.0)
        line.work("-c", "2", pool=pool)
        good = {f"u-{name}" for name in names[::2]}
        assert line.all_delivered(good) == Counter(good) or waiting == 2
        assert len(list(line.dead.list(Filter(reason="http_400")))) == 32
        assert {one.attempts for one in line.dead.list()} == {1}
        assert len(sizes(line)) == posts_needed(64, range(1, 64, 2)) or waiting == 2


DRIBBLES = {
    "status line": [drip(b"HTTP/1.1 204 " + b"x" * 2_000)],
    "headers": [TAKEN[:-2], drip(b"X-A: " + b"y" * 2_000)],
    "interim answers": [drip(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, size=27)],
    "chunks": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        drip(b"2;" + b"x" * 2_000),
    ],
}


@pytest.mark.parametrize("dribble", DRIBBLES.values(), ids=list(DRIBBLES))
@pytest.mark.parametrize("pool", POOLS)
def test_a_dribbling_endpoint_costs_no_thread(tmp_path, pool, dribble):
    """Each slot meets it, and each comes back: all events arrive, and SIGTERM ends the worker."""
    uuids = [f"u-{n}" for n in range(12)]
    settings = {**QUICK, "request_timeout": "0.5,0.5", "request_deadline": 1}
    with (
        RawServer(*[dribble] * 4, *[[TAKEN]] * 500) as endpoint,
        Line(tmp_path, config=config_of(300), **settings) as line,
    ):
        worker = line.work("-c", "4", pool=pool, url_override=endpoint.url)
        line.dispatch(uuids)

        def arrived():
            # A status that was read stands, whatever becomes of the body: "chunks" are deliveries.
            return set(uuids) <= set(uuids_in(body for _, body in list(endpoint.requests)))

        eventually(lambda: arrived() and line.is_empty(), what="delivered")

        endpoint.scripts[:0] = [dribble] * 4
        line.dispatch(["more-1", "more-2", "more-3", "more-4"])
        eventually(lambda: len(endpoint.scripts) < 500)
        asked = time.monotonic()
        worker.stop(1.0 + SLACK_S + PREFORK_S * (pool == "prefork"))
        print(f"{pool}: ended after {time.monotonic() - asked:.1f} s")
        assert not list(line.dead.list())


def test_an_interim_answer_costs_no_event(tmp_path):
    """103 before each 204, and a 503 now and then: each event is delivered by its own 204."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    away = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
    uuids = [f"u-{n}" for n in range(20)]
    scripts = [[hints, 0.02, TAKEN], [hints + away], [hints, hints, 0.02, TAKEN]] * 40
    with RawServer(*scripts) as endpoint, Line(tmp_path, **QUICK) as line:
        line.work("-c", "1", url_override=endpoint.url)
        line.dispatch(uuids)
        eventually(lambda: line.is_empty() and len(endpoint.requests) >= 20)

        done = list(endpoint.requests)
        answered = [(body, number % 3 != 1) for number, (_, body) in enumerate(done)]
        assert sorted(uuids_in(body for body, was_taken in answered if was_taken)) == sorted(uuids)
        assert not list(line.dead.list())


STUCK = """
from celery.signals import task_prerun as _prerun

@_prerun.connect(weak=False)
def _never_come_back(**_):
    import time
    time.sleep(120)
"""
"""Configuration of a worker whose threads do not come back, as from a resolver that hangs."""


def test_a_worker_whose_threads_do_not_come_back_is_not_called_healthy(tmp_path):
    """Neither by `status`, nor by the probe that asks that worker alone, and restarts it."""
    config = config_of(4) + STUCK
    with Line(tmp_path, config=config, request_timeout="0.5,1", **QUICK) as line:
        line.work("-c", "2", "-n", "stuck@here")
        with celery_app(line.broker.url) as app:
            assert invoke("status", app=app).exit_code == 0
            line.dispatch(["u-1"])
            says = "stuck@here does not come back from 1 event: restart it"
            eventually(lambda: says in invoke("status", app=app).stdout)
            probe = invoke("status", "--worker", "stuck@here", app=app)

    assert probe.exit_code != 0
    assert says in probe.stdout
