"""What docs/operations.md gives to a cluster: manifests that are consistent, probes that work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optly_celery import Settings, dispatch
from optly_celery.testing.server import Answer

from .conftest import celery_app
from .line import Line
from .manifests import manifests, probe, worker
from .support import US_URL, eventually, params_of

# https://keda.sh/docs/latest/scalers/redis-lists/
REDIS_TRIGGER = {
    "address", "host", "port", "username", "password", "listName", "listLength",
    "activationListLength", "databaseIndex", "enableTLS", "unsafeSsl",
}  # fmt: skip
REDIS_TRIGGER |= {f"{name}FromEnv" for name in ("address", "host", "port", "username", "password")}
# https://keda.sh/docs/latest/reference/scaledobject-spec/
SCALED_OBJECT = {
    "scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod",
    "idleReplicaCount", "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers",
}  # fmt: skip


def trigger():
    (only,) = manifests()["ScaledObject"]["spec"]["triggers"]
    return only


def passes(name, line):
    """Run a probe as the kubelet does, in the environment of the worker's container."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OPTLY_BROKER_URL": line.broker.url,
    }
    done = subprocess.run(probe(name), env=env, capture_output=True, text=True, check=False)
    print(name, done.returncode, done.stdout, done.stderr)
    return done.returncode == 0


def test_the_scaled_object_says_what_keda_understands():
    """Only fields that it knows; metadata is strings, as KEDA's own resource demands."""
    found = manifests()["ScaledObject"]
    metadata = trigger()["metadata"]

    assert found["apiVersion"] == "keda.sh/v1alpha1"
    assert found["spec"].keys() <= SCALED_OBJECT
    assert trigger().keys() <= {"type", "name", "metadata", "authenticationRef", "useCachedMetrics"}
    assert trigger()["type"] == "redis"
    assert metadata.keys() <= REDIS_TRIGGER
    assert {"address", "listName", "listLength", "databaseIndex"} <= metadata.keys()
    assert all(isinstance(value, str) for value in metadata.values())
    host, _, port = metadata["address"].partition(":")
    assert host
    assert port.isdigit()
    assert int(metadata["listLength"]) > 0
    assert int(metadata["databaseIndex"]) == 0


def test_the_scaled_object_scales_the_worker_and_never_to_zero():
    """Retries that wait are held by a worker, and an empty list does not tell of them."""
    found = manifests()
    spec = found["ScaledObject"]["spec"]

    assert spec["scaleTargetRef"] == {"name": found["Deployment"]["metadata"]["name"]}
    assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    assert "idleReplicaCount" not in spec


def test_keda_counts_the_list_in_which_events_wait(broker):
    """What it is told to watch grows by one with each event, in the database it is told."""
    with celery_app(f"{broker.url.rsplit('/', 1)[0]}/{trigger()['metadata']['databaseIndex']}"):
        for number in range(7):
            dispatch(US_URL, params_of(uuid=f"u-{number}"))

    assert broker.client().llen(trigger()["metadata"]["listName"]) == 7


def test_the_worker_gets_the_time_that_it_needs_to_end():
    """An attempt and a batch that is split, within the grace period; probes that can answer."""
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    attempt_s = sum(Settings().request_timeout)

    assert pod["terminationGracePeriodSeconds"] > 2 * attempt_s
    for name in ("readinessProbe", "livenessProbe"):
        # The broker is given 5 s, the worker as many, and Python's start takes a while.
        assert worker()[name]["timeoutSeconds"] >= 15
    live = worker()["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 300


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    settings = {"retry_backoff": 0.2, "retry_backoff_max": 1, "request_timeout": 2}
    with Line(tmp_path_factory.mktemp("line"), **settings) as made:
        made.work("-c", "4")
        yield made


@pytest.mark.parametrize("name", ["readinessProbe", "livenessProbe"])
def test_a_probe_passes_where_the_worker_works(line, name):
    """The command as the page has it, no word changed."""
    eventually(lambda: passes(name, line))


@pytest.mark.parametrize("name", ["readinessProbe", "livenessProbe"])
def test_a_probe_fails_where_the_worker_does_not_consume(line, name):
    """Somebody has told it to stop consuming; liveness then gives it five minutes."""
    with celery_app(line.broker.url) as app:
        app.control.cancel_consumer("optimizely", reply=True, limit=1, timeout=20)
        assert not passes(name, line)
        app.control.add_consumer("optimizely", reply=True, limit=1, timeout=20)
        eventually(lambda: passes(name, line))


@pytest.mark.parametrize("name", ["readinessProbe", "livenessProbe"])
def test_no_probe_restarts_workers_while_optimizely_is_away(line, name):
    """A worker that has paused does what it should; a restart mends no endpoint."""
    line.collector.down = Answer(503)
    worker = line.workers[0]
    paused, resumed = worker.output().count(" paused: "), worker.output().count(" resumed: ")
    with celery_app(line.broker.url):
        for number in range(30):
            dispatch(US_URL, params_of(uuid=f"{name}-{number}"))
        try:
            eventually(lambda: worker.output().count(" paused: ") > paused)
            assert passes(name, line)
        finally:
            line.collector.down = None
        eventually(lambda: worker.output().count(" resumed: ") > resumed)


def test_a_redis_that_does_not_answer_restarts_no_worker(tmp_path):
    """Not ready, but alive: a restart mends no Redis."""
    with Line(tmp_path) as line:
        line.work("-c", "4")
        line.broker.stop()

        assert not passes("readinessProbe", line)
        assert passes("livenessProbe", line)
