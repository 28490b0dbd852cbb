"""docker-compose.yml as people start it: page, worker, collector and Flower."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.error

import pytest
import yaml

from ..manifests import probe
from ..support import US_URL, eventually, stays
from . import engine
from .conftest import CONFIG
from .stack import SERVICES, Stack, Visitor, events_in

DOWN_S = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The services, up; and gone afterwards with all that is theirs."""
    for target in ("worker", "flower", "demo"):
        engine.build(target)
    config = tmp_path_factory.mktemp("config") / "celeryconfig.py"
    config.write_bytes(CONFIG)
    config.parent.chmod(0o755)
    made = Stack(config)
    try:
        made.compose("up", "-d", "--no-build")
        for service in SERVICES:
            made.healthy(service)
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")


def test_page_collector_and_flower_agree(stack):
    """Ten visitors who buy: as many events in each of the three, and every task a success."""
    visitors = [Visitor(stack) for _ in range(10)]
    for visitor in visitors:
        visitor.come_by()
        visitor.buy()

    eventually(lambda: stack.arrived()["events"] == 30, what="30 events at the collector")

    def shown():
        tasks = stack.tasks().values()
        return (
            tasks
            and {task["state"] for task in tasks} == {"SUCCESS"}
            and sum(events_in(task["args"]) for task in tasks)
        )

    eventually(lambda: shown() == 30, what="30 events in Flower")
    assert {task["name"] for task in stack.tasks().values()} == {"optly_celery.deliver"}
    assert stack.arrived()["refused"] == 0
    _no_personal_data(stack, visitors)


def test_flower_tells_retries_and_failures(stack):
    """What was refused is a failure with the reason; what waits for the endpoint has retries."""
    refused = {"account_id": "1", "project_id": "111002", "visitors": [{
        "visitor_id": "somebody", "attributes": [],
        "snapshots": [{"decisions": [], "events": [
            {"entity_id": "1", "uuid": "u", "timestamp": "yesterday"}]}],
    }]}  # fmt: skip
    code = f"from optly_celery import dispatch; dispatch({US_URL!r}, {refused!r})"
    stack.compose("exec", "-T", "shop", "python", "-c", code)
    failed = eventually(lambda: _tasks(stack, lambda task: task["state"] == "FAILURE"))

    (collector,) = stack.containers("collector")
    engine.docker("pause", collector)
    try:
        visitor = Visitor(stack)
        visitor.come_by()
        eventually(lambda: _tasks(stack, lambda task: task["retries"]), what="a retry in Flower")
    finally:
        engine.docker("unpause", collector)

    eventually(lambda: _tasks(stack, lambda t: t["retries"] and t["state"] == "SUCCESS"))
    eventually(lambda: len(_tasks(stack, lambda task: task["state"] != "SUCCESS")) == 1)
    assert "HTTP 400 (1 kept as dead letter)" in failed[0]["exception"]
    assert "somebody" not in stack.flower("/api/tasks")
    _no_personal_data(stack, [visitor])


def _tasks(stack, wanted):
    return [task for task in stack.tasks().values() if wanted(task)]


def _no_personal_data(stack, visitors):
    """On any page of Flower, nor in its API."""
    one = next(iter(stack.tasks()))
    columns = "order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
    (worker, *_) = json.loads(stack.flower("/api/workers?refresh=1"))
    pages = [
        "/api/tasks", "/api/workers", f"/api/task/info/{one}", "/workers", f"/worker/{worker}",
        "/tasks", f"/task/{one}", "/broker", "/metrics",
        f"/tasks/datatable?draw=1&start=0&length=100&search[value]=&{columns}",
    ]  # fmt: skip
    text = "".join(stack.flower(page) for page in pages)
    assert "optly_celery.deliver" in text
    assert "POST logx.optimizely.com, project " in text
    for visitor in visitors:
        assert visitor.id not in text
    for word in ("visitor_id", "attributes", "night-shift", "revenue", "entity_id"):
        assert word not in text


@pytest.mark.parametrize(
    ("user", "password"), [(None, None), ("flower", "guessed"), ("other", "correct-horse")]
)
@pytest.mark.parametrize("path", ["/", "/tasks", "/workers", "/api/tasks", "/api/workers"])
def test_flower_asks_who_is_there(stack, path, user, password):
    """Every page and the API; only the health check answers anybody."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.flower(path, user=user, password=password)

    assert refused.value.code == 401
    refused.value.close()


@pytest.mark.parametrize("service", SERVICES)
def test_containers_can_do_no_more_than_they_must(stack, service):
    """Read-only, without capabilities, not root, and only shop and Flower reachable, from here."""
    found = stack.inspect(service)
    host = found["HostConfig"]

    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert found["Config"]["User"] not in ("", "root", "0")
    published = {
        binding["HostIp"] for ports in (host["PortBindings"] or {}).values() for binding in ports
    }
    assert published == ({"127.0.0.1"} if service in ("shop", "flower") else set())


def test_only_the_worker_reaches_the_world(stack):
    """Redis, the demo's worker and its collector are on a network that leads nowhere."""
    name = f"{stack.project}_pipeline"
    assert json.loads(engine.docker("network", "inspect", name))[0]["Internal"] is True

    for service in ("redis", "demo-worker", "collector"):
        assert list(stack.inspect(service)["NetworkSettings"]["Networks"]) == [name]


def test_redis_keeps_what_it_is_given(stack):
    """An append-only file on a volume, bounded memory, and no eviction."""

    def setting(name):
        told = stack.compose("exec", "-T", "redis", "redis-cli", "config", "get", name)
        return told.split()[1]

    assert setting("appendonly") == "yes"
    assert setting("maxmemory-policy") == "noeviction"
    assert int(setting("maxmemory")) > 0
    (mount,) = stack.inspect("redis")["Mounts"]
    assert (mount["Name"], mount["Destination"]) == (f"{stack.project}_redis", "/data")


OFFICIAL_BASE = 121_000_000
"""What python:3.13-slim-bookworm takes on disk, by docker-library/repo-info (3.13.15, amd64)."""


@pytest.mark.parametrize("target", ["worker", "flower", "demo"])
def test_on_the_official_base_an_image_stays_under_200_mb(stack, target):
    """What the project adds is the same on any base."""

    def size(image):
        return int(engine.docker("image", "inspect", "-f", "{{.Size}}", image))

    added = size(f"{engine.IMAGE}:{target}") - size(engine.PYTHON_IMAGE)
    print(f"{target}: {added / 1e6:.1f} MB added")
    assert OFFICIAL_BASE + added < 200_000_000
    assert added < 50_000_000


@pytest.mark.parametrize("target", ["worker", "flower", "demo"])
def test_an_image_holds_no_compiler_and_no_package_installer(stack, target):
    """What the project adds to its base has none, and the venv that is on the path no pip."""
    look = (
        "import shutil, importlib.util as u;"
        "print([c for c in ('gcc', 'cc', 'make', 'git') if shutil.which(c)], u.find_spec('pip'))"
    )
    found = engine.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "python",
        f"{engine.IMAGE}:{target}", "-c", look,
    )  # fmt: skip
    assert found == "[] None"


def test_a_health_check_tells_a_worker_that_does_not_consume(stack):
    """The process runs, but it takes nothing from the queue."""
    (worker,) = stack.containers("worker")
    check = stack.inspect("worker")["Config"]["Healthcheck"]["Test"][1:]
    control = ["celery", "-A", "optly_celery", "control"]
    assert "healthy" in engine.docker("exec", worker, *check)

    engine.docker("exec", worker, *control, "cancel_consumer", "optimizely")
    done = subprocess.run(["docker", "exec", worker, *check], capture_output=True, check=False)
    engine.docker("exec", worker, *control, "add_consumer", "optimizely")

    assert done.returncode == 1
    assert b"no worker consumes the queue optimizely" in done.stdout
    assert "healthy" in engine.docker("exec", worker, *check)


def test_the_probes_of_the_operations_page_work(stack):
    """A Redis that does not answer makes a worker not ready, but restarts none."""
    ready, live = probe("readinessProbe"), probe("livenessProbe")
    (worker,) = stack.containers("worker")
    (redis,) = stack.containers("redis")

    def passes(probe):
        done = subprocess.run(["docker", "exec", worker, *probe], capture_output=True, check=False)
        return done.returncode == 0

    def probes():
        return passes(ready), passes(live)

    assert probes() == (True, True)
    engine.docker("pause", redis)
    try:
        assert probes() == (False, True)
    finally:
        engine.docker("unpause", redis)
    eventually(lambda: probes() == (True, True), timeout_s=90)

    control = ["celery", "-A", "optly_celery", "control"]
    engine.docker("exec", worker, *control, "cancel_consumer", "optimizely")
    assert probes() == (False, False)
    engine.docker("exec", worker, *control, "add_consumer", "optimizely")
    assert probes() == (True, True)


@pytest.mark.parametrize("service", ["redis", "demo-worker"])
def test_a_container_that_is_away_for_20_seconds_costs_no_event(stack, service):
    """SIGKILL amid POSTs, and 200 clicks meanwhile; each click that was answered has arrived."""
    before = stack.arrived()["events"]
    (container,) = stack.containers(service)
    clicked = []

    def click():
        visitor = Visitor(stack)
        for number in range(200):
            visitor.come_by()
            clicked.append(number)
            time.sleep(0.11)  # so that the clicks last longer than the absence

    person = threading.Thread(target=click)
    person.start()
    eventually(lambda: len(clicked) > 5)
    with _cut_off(stack, "collector"):
        seen = len(clicked)
        eventually(lambda: len(clicked) > seen + 1)
        engine.docker("kill", "--signal", "KILL", container)
    eventually(lambda: not stack.runs(container))
    stays(lambda: not stack.runs(container), for_s=DOWN_S, what="away")
    engine.docker("start", container)
    person.join(120)

    assert len(clicked) == 200
    eventually(
        lambda: stack.arrived()["events"] >= before + 200, timeout_s=120,
        what=lambda: f"{before} and 200 more events, but {stack.arrived()['events']}",
    )  # fmt: skip
    assert stack.arrived()["events"] == before + 200
    stack.healthy(service)


@contextlib.contextmanager
def _cut_off(stack, service):
    """On no network: a POST that has begun hangs, and nothing of it is read later."""
    (container,) = stack.containers(service)
    network = f"{stack.project}_pipeline"
    engine.docker("network", "disconnect", network, container)
    try:
        yield
    finally:
        engine.docker("network", "connect", "--alias", service, network, container)


def test_four_workers_share_the_work_and_stop_cleanly(stack):
    """``--scale``, then ``stop``: each ends by itself, with nothing left unacked."""
    before = stack.arrived()["events"]
    _scale(stack, "demo-worker", 4)

    visitor = Visitor(stack)
    for _ in range(40):
        visitor.come_by()
    eventually(lambda: stack.arrived()["events"] == before + 40)

    _stops_cleanly(stack, "demo-worker")


def test_the_worker_scales_to_four(stack):
    """The one of production, as ``--scale worker=4`` has it; started after the demo's ended."""
    _scale(stack, "worker", 4)

    _stops_cleanly(stack, "worker")


def _scale(stack, service, count):
    stack.compose("up", "-d", "--no-build", "--no-recreate", "--scale", f"{service}={count}",
                  service)  # fmt: skip
    stack.healthy(service, count)


def _stops_cleanly(stack, service):
    stack.compose("stop", "--timeout", "30", service)
    ids = stack.containers(service)
    codes = [engine.docker("inspect", "-f", "{{.State.ExitCode}}", one) for one in ids]
    assert codes == ["0"] * 4
    assert stack.compose("exec", "-T", "redis", "redis-cli", "hlen", "unacked").strip() == "0"


EVERY_COMPOSE = pytest.mark.parametrize("compose", engine.compose_commands())


def _config(compose, *arguments, **environment):
    """``docker compose config`` as people type it, with a .env that is still to be filled in."""
    given = {"FLOWER_BASIC_AUTH": "a:b", "FLOWER_COOKIE_SECRET": "c"} | environment
    return subprocess.run(
        [*compose.split(), "--env-file", engine.ROOT / ".env.example",
         "-f", engine.ROOT / "docker-compose.yml", *arguments],
        env=os.environ | given, capture_output=True, text=True, check=False,
    )  # fmt: skip


@EVERY_COMPOSE
@pytest.mark.parametrize("secret", ["FLOWER_BASIC_AUTH", "FLOWER_COOKIE_SECRET"])
def test_without_a_secret_nothing_starts(compose, secret):
    """A sentence says which, and where to read more."""
    done = _config(compose, "config", **{secret: ""})

    assert done.returncode != 0
    assert f"set {secret} in .env, as .env.example says" in done.stderr


@EVERY_COMPOSE
@pytest.mark.parametrize("profile", [(), ("--profile", "demo")], ids=["plain", "demo"])
def test_the_compose_file_is_clean(compose, profile):
    """``docker compose config``, the old one and the new, has nothing to complain of."""
    done = _config(compose, *profile, "config", "--quiet")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_the_demo_profile_starts_the_demo():
    """Without it: Redis, a worker and Flower.

    Read from the file: docker-compose 1.29 lists every service, whatever the profile.
    """
    services = yaml.safe_load((engine.ROOT / "docker-compose.yml").read_text())["services"]

    assert set(services) == set(SERVICES)
    plain = {name for name, service in services.items() if "profiles" not in service}
    assert plain == {"redis", "worker", "flower"}
