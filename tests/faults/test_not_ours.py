"""Real workers of an app that has loaded the deliver task and consumes other queues."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optly_celery.names import DELIVER_TASK

from ..support import Broker, Worker, eventually

APP = """\
from celery import Celery
app = Celery("shop", broker={url!r}, include=["optly_celery.tasks"])
app.conf.update({conf!r})
@app.task
def buy():
    print("bought")
"""

IN_A_TEST = """\
from celery.contrib.testing.worker import start_worker
from shop import app, buy
app.conf.result_backend = "cache+memory://"
with start_worker(app, perform_ping_check=False, pool="solo") as worker:
    assert app.conf.broker_transport is None
    assert buy.delay().get(timeout=20) is None
print("worked")
"""

WRONG = [
    {},
    {"optly_pause_after": -1},
    {"optly_retry_backof": 1},
    {"broker_transport_options": {"visibility_timeout": 5}},
]


@pytest.mark.parametrize("conf", WRONG, ids=str)
def test_a_worker_in_a_users_own_tests_works(tmp_path, conf):
    """Celery's own helper, in memory, whatever our settings are."""
    (tmp_path / "shop.py").write_text(APP.format(url="memory://", conf=conf))
    (tmp_path / "case.py").write_text(IN_A_TEST)

    done = subprocess.run(
        [sys.executable, "case.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "worked" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("conf", WRONG, ids=str)
def test_a_worker_of_another_queue_works_and_says_that_it_delivers_nothing(tmp_path, conf):
    """On Redis; with settings that a worker of the deliver queue would refuse."""
    broker = Broker(tmp_path)
    (tmp_path / "shop.py").write_text(APP.format(url=broker.url, conf=conf))
    worker = Worker(tmp_path / "log", {}, "-Q", "other", "-P", "threads", app="shop", cwd=tmp_path)
    try:
        worker.start()
        subprocess.run(
            [sys.executable, "-c", "from shop import buy; buy.apply_async(queue='other')"],
            cwd=tmp_path, check=True, timeout=60,
        )  # fmt: skip
        eventually(lambda: "bought" in worker.output())
        (line,) = [text for text in worker.output().splitlines() if "knows" in text]
        assert "WARNING" in line
        assert DELIVER_TASK in line
        assert "-Q optimizely,other" in line
        assert worker.stop() == 0
    finally:
        worker.kill()
        broker.stop()
