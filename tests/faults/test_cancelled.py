"""Nothing that was cancelled is acked: whatever ends a worker, in whatever pool."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from optly_celery.testing.server import Answer

from ..line import Line
from ..support import eventually

SIGNALS = {
    "QUIT": ["SIGQUIT"],
    "QUIT twice": ["SIGQUIT", "SIGQUIT"],
    "QUIT three times": ["SIGQUIT", "SIGQUIT", "SIGQUIT"],
    "TERM and QUIT": ["SIGTERM", "SIGQUIT"],
    "INT twice": ["SIGINT", "SIGINT"],
    "TERM remapped": ["SIGTERM"],
    "TERM remapped, twice": ["SIGTERM", "SIGTERM"],
}
HERE = ("gevent", "QUIT", 0.0), ("gevent", "TERM remapped, twice", 1.0)
CASES = [
    pytest.param(pool, told, soft_s, marks=() if (pool, told, soft_s) in HERE else pytest.mark.slow)
    for pool, soft_s in [
        ("threads", 0.0),
        ("prefork", 0.0),
        ("solo", 1.0),
        ("gevent", 0.0),
        ("gevent", 1.0),
    ]
    for told in SIGNALS
]


@pytest.mark.parametrize(("pool", "told", "soft_s"), CASES)
def test_what_was_cancelled_is_neither_acked_nor_told_to_have_succeeded(
    tmp_path, monkeypatch, pool, told, soft_s
):
    """Each event is delivered, in the queue or unacked; monitors hear of no other success."""
    if "remapped" in told:
        monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    config = (
        f"worker_soft_shutdown_timeout = {soft_s}\n"
        f"worker_enable_soft_shutdown_on_idle = {soft_s > 0}\n"
    )
    events = [f"u-{n}" for n in range(8)]
    under_way = 1 if pool == "solo" else 4
    with Line(tmp_path, config=config, request_timeout="1,20") as line, line.watch as watch:
        line.collector.down = Answer(204, {}, 6.0)
        worker = line.work("-c", "4", pool=pool)
        line.dispatch(events)
        eventually(lambda: len(line.collector.received) >= under_way)
        for name in SIGNALS[told]:
            said = len(worker.output())
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.Signals[name])
            eventually(lambda n=said: worker.process.poll() is not None or len(worker.output()) > n)
        worker.process.wait(30)
        sent = {e["uuid"] for e in watch.heard if e["type"] == "task-succeeded"}
        acked = len(events) - left_in(line)

        assert acked <= len(taken_by(line)), "acked, and never answered"
        assert len(sent) <= acked
        line.collector.down = None
        visible_again(line)
        line.work("-c", "4", pool=pool)
        line.all_delivered(events)


IN_A_LOG_LINE = """
worker_soft_shutdown_timeout = 1.0
import logging as _logging, os as _os, signal as _signal, threading as _threading, time as _time
from celery.signals import worker_ready as _ready

class _Told(_logging.Handler):
    seen = 0

    def emit(self, record):
        if _threading.current_thread() is _threading.main_thread():
            _Told.seen += "received" in record.getMessage()
            if _Told.seen == 5:
                _Told.seen += 1
                _time.sleep(1.0)  # what runs ends meanwhile, and waits for the log
                _os.kill(_os.getpid(), getattr(_signal, _os.environ["TOLD"]))

@_ready.connect(weak=False)
def _add(**_):
    _logging.getLogger().addHandler(_Told())
"""
"""Configuration of a worker that is told to end while its main thread holds the log's lock."""


@pytest.mark.parametrize("told", ["SIGQUIT", "SIGTERM", "SIGTERM, remapped"])
@pytest.mark.parametrize(
    "pool",
    ["threads", *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "solo", "gevent"))],
)
def test_a_worker_that_is_told_to_end_in_a_log_line_ends(tmp_path, monkeypatch, pool, told):
    """Its threads wait for the log, and so it must not wait for them there."""
    name, _, remapped = told.partition(",")
    monkeypatch.setenv("TOLD", name)
    if remapped:
        monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    with Line(tmp_path, config=IN_A_LOG_LINE) as line:
        line.collector.down = Answer(204, {}, 0.3)
        worker = line.work("-c", "2", "--prefetch-multiplier", "4", pool=pool)
        events = [f"u-{n}" for n in range(12)]
        line.dispatch(events)

        worker.process.wait(40)

        monkeypatch.setenv("TOLD", "SIGCONT")  # nothing, to the next one
        line.collector.down = None
        line.work("-c", "2", pool=pool)
        line.all_delivered(events)


def left_in(line):
    client = line.broker.client()
    return client.llen("optimizely") + client.hlen("unacked")


def taken_by(line):
    """Requests that the endpoint has had so much time for that it may have answered."""
    return [r for r in line.collector.received if time.monotonic() - r.at >= 5.0]


def visible_again(line):
    """As if the visibility timeout had passed, for what a worker that was killed held."""
    client = line.broker.client()
    for tag in client.hkeys("unacked"):
        client.zadd("unacked_index", {tag: 1})
