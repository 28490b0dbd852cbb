"""A Redis that Sentinels watch over: its primary is killed, and a replica takes its place."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from optly_celery import close, dispatch, stats

from ..conftest import celery_app
from ..line import Line
from ..support import US_URL, Broker, eventually, free_port, params_of

OPTIONS = {"master_name": "events", "visibility_timeout": 360}
CONFIG = f"broker_transport_options = {OPTIONS!r}\n"


@contextlib.contextmanager
def sentinel(directory, primary):
    """One that acts alone and soon; its URL."""
    port, conf = free_port(), directory / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor events 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds events 500\n"
        "sentinel failover-timeout events 3000\n"
    )
    with (directory / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([primary.program, conf, "--sentinel"], stdout=log, stderr=log)
    try:
        yield f"sentinel://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_primary_that_is_killed_costs_no_event(tmp_path, pool):
    """What was replicated is delivered; what is dispatched meanwhile waits in the outbox."""
    early, later = [f"early-{n}" for n in range(100)], [f"later-{n}" for n in range(100)]
    (tmp_path / "replica").mkdir()
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(Line(tmp_path / "line", config=CONFIG))
        replica = Broker(tmp_path / "replica")
        stack.callback(replica.stop)
        replica.client().replicaof("127.0.0.1", line.broker.port)
        eventually(lambda: replica.client().info("replication")["master_link_status"] == "up")
        url = stack.enter_context(sentinel(tmp_path, line.broker))
        app = stack.enter_context(celery_app(url))
        app.conf.update(broker_transport_options=OPTIONS, optly_dead_letter_url=replica.url)
        stack.callback(close)
        worker = line.work("-c", "4", pool=pool, broker_url=url, dead_letter_url=replica.url)
        for uuid in early:
            dispatch(US_URL, params_of(uuid=uuid))
        line.all_delivered(early)

        line.broker.kill()
        for uuid in later:
            dispatch(US_URL, params_of(uuid=uuid))
        line.broker = replica

        line.all_delivered(later)
        assert stats()["dropped"] == {}
        assert worker.process.poll() is None
