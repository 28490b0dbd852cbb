"""A broker that fails under a running worker: it lives, and goes on by itself."""

from __future__ import annotations

import time
from contextlib import ExitStack

import kombu
import pytest

from optly_celery.testing.server import Answer

from ..line import Line
from ..support import Broker, eventually, stays
from .proxy import Proxy

SOCKET_TIMEOUT_S = 2
FAULT_S = SOCKET_TIMEOUT_S + 2
"""How long the broker is away: longer than the worker waits for an answer."""
LIMIT_S = 40
"""How long after its return the worker works again, at the latest."""

CONFIG = f"""
from optly_celery.celeryconfig import broker_transport_options as _usual
broker_transport_options = {{**_usual, "socket_timeout": {SOCKET_TIMEOUT_S},
    "health_check_interval": 4, "visibility_timeout": 20}}
"""

UNDER_WAY = [f"way-{n}" for n in range(4)]
LATER = [f"later-{n}" for n in range(20)]


def restart(line, _proxy, _stack):
    line.broker.kill()
    _outlived(line)
    line.broker.start()


def hang(line, _proxy, _stack):
    line.broker.freeze()
    _outlived(line)
    line.broker.thaw()


def run_out_of_memory(line, _proxy, _stack):
    line.broker.client().config_set("maxmemory", 1)
    _outlived(line)
    line.broker.client().config_set("maxmemory", 0)


def go_silent(_line, proxy, _stack):
    proxy.go_silent()


def fail_over(line, proxy, stack):
    """Its replica answers at the same address: read-only at first."""
    directory = line.broker.directory.parent / "replica"
    directory.mkdir()
    replica = Broker(directory)
    stack.callback(replica.stop)
    replica.client().replicaof("127.0.0.1", line.broker.port)
    eventually(lambda: replica.client().info("replication")["master_link_status"] == "up")
    primary = line.broker
    stack.callback(primary.stop)
    primary.client().execute_command("WAIT", 1, 5000)
    primary.kill()
    line.broker = replica
    proxy.lead_to(replica.port)
    _outlived(line)
    replica.client().replicaof("NO", "ONE")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "prefork", "solo", "gevent"])
@pytest.mark.parametrize("fault", [restart, hang, run_out_of_memory, go_silent, fail_over])
def test_a_worker_outlives_its_brokers_trouble(tmp_path, fault, pool):
    """POSTs are under way when it begins; afterwards all is delivered, by the same process."""
    if fault is go_silent and kombu.VERSION < (5, 7) and pool in ("threads", "prefork"):
        pytest.skip("kombu before 5.7 notices it only when TCP gives up")
    with ExitStack() as stack:
        line = stack.enter_context(
            Line(tmp_path, config=CONFIG, retry_backoff_max=1, retry_backoff=0.1, request_timeout=3)
        )
        proxy = stack.enter_context(Proxy(line.broker.port))
        worker = line.work("-c", "4", pool=pool, broker_url=proxy.url)
        line.collector.script(*[Answer(204, {}, 1)] * len(UNDER_WAY))
        line.dispatch(UNDER_WAY)
        eventually(lambda: line.collector.count >= (1 if pool == "solo" else 4))

        fault(line, proxy, stack)

        healed = time.monotonic()
        line.dispatch(LATER)
        eventually(
            lambda: set(line.taken()) >= set(LATER),
            timeout_s=LIMIT_S,
            what=lambda: f"{fault.__name__}, {pool}: {set(LATER) - set(line.taken())}",
        )
        print(f"{fault.__name__}, {pool}: works {time.monotonic() - healed:.1f} s after")
        assert worker.process.poll() is None
        eventually(lambda: set(line.taken()) == {*UNDER_WAY, *LATER} and line.is_empty())
        print(
            f"all {time.monotonic() - healed:.1f} s after; {sum(line.taken().values()) - 24} twice"
        )
        assert not list(line.dead.list())


def _outlived(line):
    """The fault's length is what is tested; nothing is awaited by it."""
    (worker,) = line.workers
    stays(lambda: worker.process.poll() is None, for_s=FAULT_S, what="the worker lives")
