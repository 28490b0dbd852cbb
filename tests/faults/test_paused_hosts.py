"""A host that is paused, and what goes on beside it: other hosts, queues, workers and brokers."""

from __future__ import annotations

import contextlib

import pytest
from celery import Celery

from optly_celery import dispatch
from optly_celery.testing.server import Answer, Server

from ..conftest import celery_app
from ..line import IMPATIENT, Line, taken
from ..support import US_URL, eventually, params_of

QUEUE = "optimizely"
SETTINGS = {"retry_backoff": 0.1, "retry_backoff_max": 2, "request_timeout": "0.5,1"}
TWO_HOSTS = SETTINGS | {"url_override": "", "allowed_hosts": "127.0.0.1,localhost"}


class TwoHosts:
    """One that will be down, one that is well, by two names; with a line between."""

    def __init__(self, directory, tls, config=IMPATIENT):
        self._stack = contextlib.ExitStack()
        self.line = self._stack.enter_context(Line(directory, config=config, **TWO_HOSTS))
        self.broken = self._stack.enter_context(Server(tls=tls))
        self.sound = self._stack.enter_context(Server(tls=tls))
        self.broken_url = self.broken.url
        self.sound_url = self.sound.url.replace("127.0.0.1", "localhost")
        self.parked_list = f"{QUEUE}.parked.{self.broken_url.split('/')[2]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def parked(self):
        return self.line.broker.client().llen(self.parked_list)


@pytest.mark.slow
def test_two_workers_share_what_is_parked_and_one_of_them_is_killed(tmp_path, tls):
    """Both have paused the host and parked events of it; the other one delivers all of them."""
    down, well = [f"down-{n}" for n in range(200)], [f"well-{n}" for n in range(60)]
    with TwoHosts(tmp_path, tls) as hosts:
        line, broken, sound = hosts.line, hosts.broken, hosts.sound
        broken.down = Answer(503)
        workers = [line.work("-c", "4", "-n", f"w{n}@%h") for n in range(2)]
        line.dispatch(well[:30], hosts.sound_url)
        eventually(lambda: len(sound.received) == 30)
        line.dispatch(down[:100], hosts.broken_url)
        host = hosts.broken_url.split("/")[2]
        eventually(lambda: all(f"{host} paused: " in w.output() for w in workers))
        line.dispatch(down[100:], hosts.broken_url)
        line.dispatch(well[30:], hosts.sound_url)
        eventually(lambda: len(sound.received) == 60 and hosts.parked() >= 150)

        workers[0].kill()
        broken.down = None

        eventually(
            lambda: taken(broken).keys() >= set(down), what=lambda: f"{len(taken(broken))} of 200"
        )
        eventually(lambda: line.is_empty() and not hosts.parked())
        assert taken(sound).keys() == set(well)
        assert workers[1].process.poll() is None
        assert not list(line.dead.list())


@pytest.mark.slow
def test_a_sound_host_is_served_beside_a_paused_one(tmp_path, tls):
    """Its events come while as many of a host that is down, mixed with them, are put aside.

    How fast: benchmarks/beside.py.
    """
    count = 1200
    with TwoHosts(tmp_path, tls) as hosts:
        line = hosts.line
        hosts.broken.down = Answer(503)
        line.dispatch(["broken"], hosts.broken_url)
        line.dispatch(["sound"], hosts.sound_url)
        worker = line.work("-c", "16")
        eventually(lambda: "paused: http_503" in worker.output() and hosts.sound.received)

        with celery_app(line.broker.url):
            for number in range(count):
                dispatch(hosts.sound_url, params_of(uuid=f"well-{number}"))
                dispatch(hosts.broken_url, params_of(uuid=f"down-{number}"))

        eventually(lambda: len(hosts.sound.received) > count, what="delivered")
        eventually(lambda: hosts.parked() >= count - 50, what=lambda: f"parked {hosts.parked()}")
        assert len(hosts.broken.received) <= 60
        assert taken(hosts.sound).keys() == {"sound", *(f"well-{n}" for n in range(count))}


SHIP = """
from celery import shared_task

@shared_task(name="ship")
def ship(path):
    with open(path, "a") as file:
        file.write("shipped\\n")
"""


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_other_queues_of_the_worker_go_on(tmp_path, pool):
    """A user's own tasks are run while the deliver queue is left alone, and before and after."""
    uuids, shipped = [f"u-{n}" for n in range(100)], tmp_path / "shipped"
    (tmp_path / "shop.py").write_text(SHIP)
    with Line(tmp_path, config=IMPATIENT + 'imports = ("shop",)\n', **SETTINGS) as line:
        line.collector.down = Answer(503)
        worker = line.work("-c", "4", "-Q", f"{QUEUE},celery", pool=pool)

        def ship(count):
            with contextlib.closing(Celery(broker=line.broker.url, set_as_current=False)) as app:
                for _ in range(count):
                    app.send_task("ship", [str(shipped)], queue="celery")

        def shipments():
            return len(shipped.read_text().splitlines()) if shipped.exists() else 0

        ship(1)
        eventually(lambda: shipments() == 1)
        line.dispatch(uuids)
        eventually(lambda: "paused: http_503" in worker.output())
        ship(20)
        eventually(lambda: shipments() == 21)
        assert line.broker.client().llen(QUEUE) >= len(uuids) - 20
        assert len(line.collector.received) <= 20

        line.collector.down = None
        line.all_delivered(uuids)
        ship(1)
        eventually(lambda: shipments() == 22)


@pytest.mark.slow
def test_a_broker_that_is_no_redis(tmp_path):
    """Nothing can be parked there, but one host's outage pauses the worker just the same."""
    uuids, folder = [f"u-{n}" for n in range(60)], tmp_path / "queue"
    folder.mkdir()
    options = {"data_folder_in": str(folder), "data_folder_out": str(folder)}
    options |= {"control_folder": str(folder / "control")}
    config = f"broker_transport_options = {options!r}\n"
    with Line(tmp_path, config=config, **SETTINGS) as line:
        line.collector.down = Answer(503)
        url = "filesystem://"
        worker = line.work("-c", "4", broker_url=url, dead_letter_url=line.broker.url)
        with celery_app(url) as app:
            app.conf.broker_transport_options = options
            for uuid in uuids:
                dispatch(US_URL, params_of(uuid=uuid))
        eventually(lambda: "paused: http_503" in worker.output())
        seen = len(line.collector.received)
        eventually(lambda: len(line.collector.received) >= seen + 2, what="probes")

        line.collector.down = None
        eventually(lambda: line.taken().keys() >= set(uuids), what="delivered")
        # In flight when it began, and the probes, of which there is one a second at most.
        assert len(line.collector.received) - len(uuids) <= 40
        assert f"{line.collector.url.split('/')[2]} resumed" in worker.output()
        assert worker.process.poll() is None
