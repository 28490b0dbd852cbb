"""Fixtures that every layer of tests shares."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, settings

from optly_celery import celery_app as apps
from optly_celery.event.event import Event
from optly_celery.runtime import process as runtime
from optly_celery.testing.server import Server

from .support import US_URL, Broker, Worker, params_of

collect_ignore = ["docker"]  # its own invocation: make test-docker

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell has what it runs in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, proxy, certificate or outbox of the machine reaches a test, nor the reverse."""
    ours = ("OPTLY_", "CELERY_", "FLOWER_", "REQUESTS_CA_", "CURL_CA_")
    for name in list(os.environ):
        if name.startswith(ours) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def fresh_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts with counters at zero and no runtime, and leaves none."""
    runtime.close(0)
    apps._fallback.clear()
    apps._chosen.clear()
    sys.modules.pop("optly_celery.celeryconfig", None)  # it reads the environment when imported
    monkeypatch.setattr(runtime, "_counters", runtime.Counters())


@pytest.fixture
def event() -> Event:
    return Event.of(US_URL, params_of(), "POST", {"Content-Type": "application/json"})


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.stop()


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    """The session's server, emptied. For faults, make a `Broker` of your own."""
    shared_broker.client().flushall()
    return shared_broker


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A server of this test alone, free to be broken."""
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Broker(directory)
    yield broker
    broker.stop()


@pytest.fixture
def collector() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def app(broker: Broker) -> Iterator[Celery]:
    """A Celery app such as a user's, current in this thread."""
    with celery_app(broker.url) as made:
        yield made


class celery_app:  # noqa: N801 - used as a function
    """A Celery app that is current for the length of the block, and nobody's afterwards."""

    def __init__(self, broker_url: str, **conf: Any) -> None:
        self._app = Celery("shop", broker=broker_url, set_as_current=False)
        self._app.conf.update(task_ignore_result=True, **conf)

    def __enter__(self) -> Celery:
        from celery import _state

        self._before = _state._tls.current_app
        self._app.set_current()
        return self._app

    def __exit__(self, *_: object) -> None:
        from celery import _state

        _state._tls.current_app = self._before
        self._app.close()


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start worker processes that die with the test: ``make_worker(broker_url, **settings)``."""
    started: list[Worker] = []

    def make(
        broker_url: str, *arguments: str, start: bool = True, cwd: Path | None = None,
        app: str = "optly_celery", **settings: object,
    ) -> Worker:  # fmt: skip
        env = {"OPTLY_BROKER_URL": broker_url}
        env |= {f"OPTLY_{name.upper()}": str(value) for name, value in settings.items()}
        log = tmp_path / f"worker-{len(started)}.log"
        worker = Worker(log, env, *arguments, app=app, cwd=cwd or tmp_path)
        started.append(worker)
        return worker.start() if start else worker

    yield make
    for worker in started:
        worker.kill()
