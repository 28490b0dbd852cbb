"""pytest-celery's fixtures, with the worker from the project's own Dockerfile."""

from __future__ import annotations

import json
import os
import urllib.request
from collections import Counter

import docker as docker_sdk
import pytest
from pytest_celery import (
    CeleryTestSetup,
    CeleryWorkerCluster,
    CeleryWorkerContainer,
    RedisContainer,
)
from pytest_docker_tools import container, fxtr, volume, wrappers

from optly_celery.runtime import process as runtime

from ..support import eventually
from . import engine

# A worker that was killed has its events handed out again after 10 s, not after 6 minutes.
CONFIG = b"""
broker_transport_options = {
    "visibility_timeout": 10, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
}
optly_retry_backoff = 0.5
optly_retry_backoff_max = 2
optly_request_timeout = (2, 5)
"""

HARDENED = {
    "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
}  # fmt: skip


def pytest_configure(config):
    """Where no engine answers: a skip with the reason; a failure where that must not be."""
    why = engine.missing()
    config.stash_reason = why
    if why and os.environ.get("OPTLY_REQUIRE_DOCKER"):
        pytest.exit(f"{why} OPTLY_REQUIRE_DOCKER is set, so this is a failure.", returncode=1)


def pytest_collection_modifyitems(config, items):
    for item in items if config.stash_reason else ():
        item.add_marker(pytest.mark.skip(reason=config.stash_reason))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(request):
    """The first to be set up, so the last to look."""
    if request.config.stash_reason:
        yield
        return
    # The SDK believes that tests run in a container wherever one has left /.dockerenv, and then
    # looks for published ports at their inner numbers. The engine is this machine's.
    wrappers.container.tests_inside_container = lambda: False
    before = engine.things()
    yield
    after = engine.things()
    assert {kind: after[kind] - before[kind] for kind in after} == {kind: set() for kind in after}


@pytest.fixture(scope="session")
def worker_image():
    return engine.build("worker")


@pytest.fixture(scope="session")
def docker_client():
    client = docker_sdk.from_env()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    """Outbox files of a test are its own, and its counters start at zero."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield
    runtime.close(0)


# Redis as the compose file has it: what was taken outlives a restart.
redis_data = volume()


class Redis(RedisContainer):
    """The broker, with an append-only file."""

    @classmethod
    def command(cls, *args, **_):
        return ["redis-server", "--appendonly", "yes", "--maxmemory-policy", "noeviction", *args]


default_redis_broker = container(
    image=engine.REDIS_IMAGE,
    ports={"6379/tcp": ("127.0.0.1", None)},
    network="{default_pytest_celery_network.name}",
    volumes={"{redis_data.name}": {"bind": "/data"}},
    command=Redis.command(),
    wrapper_class=Redis,
    timeout=60,
)


@pytest.fixture
def celery_broker(celery_redis_broker):
    return celery_redis_broker


@pytest.fixture
def celery_backend_cluster():
    """Nobody reads results."""


class Worker(CeleryWorkerContainer):
    """The image as it is: its own entry point and command."""

    @classmethod
    def worker_queue(cls):
        return "optimizely"


worker_config = volume(initial_content={"celeryconfig.py": CONFIG})


@pytest.fixture
def worker_environment(celery_broker_cluster_config):
    (url,) = celery_broker_cluster_config["urls"]
    return {"OPTLY_BROKER_URL": url, "OPTLY_URL_OVERRIDE": "http://collector:9000/v1/events"}


def worker_container():
    return container(
        image="{worker_image}",
        environment=fxtr("worker_environment"),
        network="{default_pytest_celery_network.name}",
        volumes={"{worker_config.name}": {"bind": "/etc/optly_celery", "mode": "ro"}},
        wrapper_class=Worker,
        timeout=60,
        **HARDENED,
    )


default_worker_container = worker_container()
second_worker_container = worker_container()


@pytest.fixture
def celery_worker(celery_setup_worker):
    return celery_setup_worker


@pytest.fixture
def two_workers(default_worker_container, second_worker_container):
    cluster = CeleryWorkerCluster(default_worker_container, second_worker_container)
    yield cluster
    cluster.teardown()


class Setup(CeleryTestSetup):
    """With an app such as a user's; it has time to wait for a busy engine."""

    @classmethod
    def update_app_config(cls, app):
        app.conf.update(task_ignore_result=True, optly_publish_timeout=5)


@pytest.fixture
def celery_setup_cls():
    return Setup


collector_container = container(
    image="{worker_image}",
    entrypoint=["python", "-m", "optly_celery.testing.stand_in"],
    # Not strict: there is no jsonschema in the worker's image.
    command=["--host=0.0.0.0", "--port=9000", "--no-strict"],
    ports={"9000/tcp": ("127.0.0.1", None)},
    network="{default_pytest_celery_network.name}",
    hostname="collector",
    name=f"collector-{os.getpid()}",
    timeout=60,
    **HARDENED,
)


class CollectorClient:
    """What the collector in its container has got, and how it shall answer."""

    def __init__(self, address):
        self._url = "http://{}:{}/".format(*address)
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def script(self, *answers):
        """Each a status and a delay in seconds."""
        body = json.dumps(answers).encode()
        self._open(urllib.request.Request(self._url + "script", body, method="PUT"), timeout=10)

    @property
    def posts(self):
        told = json.load(self._open(self._url + "posts", timeout=10))
        return [(status, uuids) for status, uuids in told]

    @property
    def delivered(self):
        """How often each uuid was answered 2xx."""
        return Counter(uuid for status, uuids in self.posts if status < 300 for uuid in uuids)

    def has_all(self, uuids, timeout_s=90):
        """Wait until each was delivered; returns how often."""
        eventually(lambda: self.delivered.keys() >= set(uuids), timeout_s=timeout_s)
        assert self.delivered.keys() == set(uuids)
        return self.delivered


@pytest.fixture
def collector(collector_container, docker_client, default_pytest_celery_network):
    network = docker_client.networks.get(default_pytest_celery_network.name)
    network.disconnect(collector_container.id)
    network.connect(collector_container.id, aliases=["collector"])
    collector_container.reload()
    client = CollectorClient(collector_container.get_addr("9000/tcp"))
    eventually(lambda: client.posts == [], what="a collector that answers")
    return client
