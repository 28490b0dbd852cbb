"""A client of `create_client` in processes that Celery and gevent make."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from ..queued import queued_visitors
from ..support import eventually

DATAFILE = Path(__file__).parents[1] / "sdk" / "datafile.json"

SHOP = """
from pathlib import Path

import optly_celery
from celery import Celery

app = Celery("shop", broker={broker!r})
app.conf.update(
    optly_delivery="outbox", task_ignore_result=True, worker_max_tasks_per_child=3,
    broker_connection_retry_on_startup=True,
)
client = optly_celery.create_client(datafile=Path({datafile!r}).read_text())
client.track("purchase", "main")  # as an import of the app may: the children are forked after it


@app.task
def buy(visitor):
    client.track("purchase", visitor)
"""

GREENS = """
from gevent import monkey; monkey.patch_all()
from pathlib import Path
import gevent
import optly_celery
from celery import Celery

app = Celery("greens", broker={broker!r})
app.conf.optly_delivery = "outbox"
client = optly_celery.create_client(datafile=Path({datafile!r}).read_text())

def use(who):
    def one(number):
        client.track("purchase", f"{{who}}-{{number}}")
    gevent.joinall([gevent.spawn(one, n) for n in range(20)], raise_error=True)

use("green")
client.close()
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_tasks_track_and_a_graceful_stop_leaves_nothing(broker, tmp_path, make_worker, pool):
    """In children that are replaced all the time, too."""
    (tmp_path / "shop.py").write_text(SHOP.format(broker=broker.url, datafile=str(DATAFILE)))
    worker = make_worker(broker.url, "-P", pool, "-c", "2", "-Q", "celery", app="shop")
    sender = Celery("sender", broker=broker.url, set_as_current=False)
    expected = sorted(["main", *(f"v-{number}" for number in range(20))])

    for number in range(20):
        sender.send_task("shop.buy", [f"v-{number}"], queue="celery", ignore_result=True)
    sender.close()
    eventually(lambda: worker.output().count("succeeded") == 20, what=worker.output)
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0

    assert queued_visitors(broker) == expected, worker.output()


def test_greenlets_share_a_client(broker, tmp_path):
    """Its lock is gevent's where gevent has patched, so they wait for each other and go on."""
    code = GREENS.format(broker=broker.url, datafile=str(DATAFILE))
    (tmp_path / "greens.py").write_text(code)

    done = subprocess.run(
        [sys.executable, "greens.py"], cwd=tmp_path, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert queued_visitors(broker) == sorted(f"green-{n}" for n in range(20))
