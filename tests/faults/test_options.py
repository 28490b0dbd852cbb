"""Options of Celery's that a person may set: through a real worker, what becomes of events."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery.app import defaults

from optly_celery.testing.server import Answer

from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line
from ..manifests import probe
from ..support import eventually, stays

needs_disable_prefetch = pytest.mark.skipif(
    "disable_prefetch" not in defaults.NAMESPACES["worker"], reason="new in Celery 5.6"
)


@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "solo"))]
)
@pytest.mark.parametrize(
    "annotations",
    [
        '{"*": {"max_retries": 2}}',
        '{"optly_celery.deliver": {"dont_autoretry_for": (Exception,)}}',
        '{"*": {"retry_kwargs": {"max_retries": 1}, "queue": "elsewhere"}}',
        '{"*": {"acks_late": False, "expires": 1, "Request": "celery.worker.request:Request"}}',
    ],
)
def test_an_event_outlives_whatever_is_annotated(tmp_path, annotations, pool):
    """Six attempts, and delivered; the worker says once which names it has not taken."""
    config = IMPATIENT.replace('": 4', '": 60') + f"task_annotations = {annotations}\n"
    with Line(tmp_path, config=config, **IMPATIENT_SETTINGS, pause_after=0) as line:
        worker = line.work("-c", "2", pool=pool)
        line.collector.script(*[503] * 5)
        line.dispatch(["u-1"])

        assert line.all_delivered(["u-1"]) == {"u-1": 1}
        assert len(line.posts("u-1")) == 6
        assert list(line.dead.list()) == []
        given = {name for values in eval(annotations).values() for name in values}  # noqa: S307
        said = [text for text in worker.output().splitlines() if "is not taken" in text]
        assert len(said) == len(given)
        assert all(any(f": {name} is not taken" in text for text in said) for name in given)


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.parametrize("limits", ["4,1", "3", "10,0"])
def test_a_pool_that_cannot_grow_is_not_scaled(tmp_path, pool, limits):
    """Refused before a message is taken, with a sentence; Celery would end at the first load."""
    with Line(tmp_path) as line:
        line.dispatch(["u-1"])
        worker = line.work("--autoscale", limits, pool=pool, wait=False)

        assert worker.process.wait(60) == 78
        assert "can neither grow nor shrink" in worker.output()
        assert "Traceback" not in worker.output()
        assert line.collector.count == 0
        assert not line.is_empty()


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_pool_that_can_grow_grows(tmp_path, pool):
    """As many POSTs at once as it may have."""
    uuids = [f"u-{n}" for n in range(8)]
    with Line(tmp_path) as line:
        line.collector.down = Answer(204, {}, 1.0)
        worker = line.work("--autoscale", "4,1", pool=pool)
        line.dispatch(uuids)

        line.all_delivered(uuids)
        assert "Scaling up" in worker.output()


@needs_disable_prefetch
@pytest.mark.parametrize("how", ["--disable-prefetch", "worker_disable_prefetch"])
@pytest.mark.parametrize(
    ("pool", "places"),
    [("threads", 1), ("threads", 3), ("prefork", 1), ("prefork", 2), ("solo", 1), ("gevent", 4)],
)
def test_without_prefetch_a_worker_takes_what_it_has_places_for(tmp_path, pool, places, how):
    """What waits is for whoever is idle: no POST is answered here, and all are under way."""
    config = f"{how} = True\n" if how[0] == "w" else ""
    option = [how] if how[0] == "-" else []
    with Line(tmp_path, config=config, request_timeout=90, retry_backoff_max=10) as line:
        client = line.broker.client()

        def taken():
            return client.hlen("unacked"), client.llen("optimizely"), line.collector.count

        line.collector.down = Answer(204, {}, 80.0)
        line.dispatch([f"u-{n}" for n in range(2 * places)])
        for workers in (1, 2):
            line.work("-c", str(places), "--prefetch-multiplier", "4", "-n", f"w{workers}@%h",
                      *option, pool=pool)  # fmt: skip
            held = workers * places
            wanted = (held, 2 * places - held, held)
            eventually(lambda wanted=wanted: taken() == wanted, timeout_s=20, what=str(wanted))
            stays(lambda wanted=wanted: taken() == wanted, for_s=0.5)


def run(command, line, directory):
    """Run a command as in the worker's container: its environment and its configuration."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "POOL": "threads", "OPTLY_BROKER_URL": line.broker.url}
    return subprocess.run(
        command, env=env, cwd=directory, capture_output=True, text=True, check=False
    )


def test_no_probe_restarts_a_worker_that_is_not_to_be_asked(tmp_path):
    """It says so at its start; probes look at the broker, and say what they do not know."""
    config = "worker_enable_remote_control = False\n"
    with Line(tmp_path, config=config) as line:
        worker = line.work("-c", "2")
        line.dispatch(["u-1"])
        line.all_delivered(["u-1"])
        ready, alive = probe("readinessProbe"), probe("livenessProbe")

        assert worker.output().count("worker_enable_remote_control is off") == 1
        for command in (ready, alive):
            done = run(command, line, tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert "unknown: the broker answers" in done.stdout
            assert "worker_enable_remote_control is off" in done.stdout
        # A person who asks about the whole line is not told that it is well.
        whole = run(["optly-celery", "status", "--timeout", "0.3"], line, tmp_path)
        assert whole.returncode == 1
        assert "worker_enable_remote_control is off" in whole.stdout

        line.broker.stop()
        assert run(ready, line, tmp_path).returncode == 3
        assert run(alive, line, tmp_path).returncode == 0
