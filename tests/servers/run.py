"""One run: a server is started, visited, recycled and stopped; then its events are counted."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from optly_celery.enqueue.outbox import Outbox
from optly_celery.event.payload import walk

from ..line import Line
from ..support import eventually, free_port
from .cases import Case
from .shop import EVENTS

ROOT = Path(__file__).parents[2]
_CLIENTS = 8
_WAVES = 2
_LIMIT_S = 60.0
_QUIET_S = 2.0  # how long the broker is empty before nothing more is expected to come


@dataclass(frozen=True)
class Account:
    """What became of the events of a run, by uuid.

    ``left`` were still in outbox files when the server had ended. ``processes`` is how many
    answered, 0 where that is not known.
    """

    events: int
    arrived: int
    duplicates: int
    left: int
    processes: int
    exit_code: int

    @property
    def lost(self) -> int:
        return self.events - self.arrived


class Run:
    """A server's process, its output in a file and its outbox in a directory of this run."""

    def __init__(self, case: Case, line: Line, directory: Path, *, client: str = "ours",
                 delivery: str = "outbox") -> None:  # fmt: skip
        self._case, self._line = case, line
        self._port, self._stats = free_port(), free_port()
        self._from = len(line.collector.received)
        self._visitors: set[str] = set()
        self._log = directory / "server.log"
        self.env = {
            "OPTLY_BROKER_URL": line.broker.url,
            "OPTLY_DELIVERY": delivery,
            "OPTLY_OUTBOX_DIR": str(directory / "outbox"),
            # So long that a process ends with events in its outbox, unless it looks after them.
            "OPTLY_LINGER": "30",
            "OPTLY_BATCH_EVENTS": "10000",
            # What the broker takes too late for the publisher is published twice. Where there are
            # no threads, that limit is the relay's, too.
            "OPTLY_PUBLISH_TIMEOUT": "10",
            "SHOP_CLIENT": client,
            "SHOP_COLLECTOR": line.collector.url,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def serve(self, visits: int) -> Account:
        """Start the server, have it visited so often, stop it, and account for every event."""
        try:
            if self._case.one_shot:
                self._visitors = {f"{os.getpid()}-{n}" for n in range(visits)}
                self._start(f"{os.getpid()}-", str(visits))
                code = self.wait()
                processes = int(self.output().splitlines()[-1]) if code == 0 else 0
            else:
                self._start()
                by_http = bool(self._case.paths)
                processes = (self._visit_by_http if by_http else self._visit_by_celery)(visits)
                if self._case.max_requests:
                    # Between a fork and its own signal handlers, a worker of uWSGI has its
                    # master's: told to end, it tells its siblings again, and stays.
                    eventually(self._is_at_rest, what="every worker is up")
                self.stop()
                code = self.wait()
        finally:
            self.kill()
        left = self.stored()
        uuids = self.arrived()
        return Account(
            events=visits * EVENTS,
            arrived=len(uuids),
            duplicates=sum(uuids.values()) - len(uuids),
            left=left,
            processes=processes,
            exit_code=code,
        )

    def stop(self) -> None:
        """SIGTERM, as a deploy does it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def arrived(self) -> Counter[str]:
        """The uuids that the endpoint took, each as often as it did, once no more are to come."""
        found: Counter[str] = Counter()
        empty_since = time.monotonic()

        def all_came() -> bool:
            nonlocal found, empty_since
            found = self._taken()
            if not self._line.is_empty():
                empty_since = time.monotonic()
            return (
                len(found) == len(self._visitors) * EVENTS
                or time.monotonic() - empty_since > _QUIET_S
            )

        eventually(all_came, what="the worker has delivered what there is")
        return found

    def output(self) -> str:
        return self._log.read_text(errors="replace")[-8000:]

    def kill(self) -> None:
        """SIGKILL, children included."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def _start(self, *arguments: str) -> None:
        ports = {"port": self._port, "stats": self._stats}
        command = [part.format(**ports) for part in self._case.command]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *arguments], cwd=ROOT, env=os.environ | self.env, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> int:
        """The exit code, once there is one."""
        assert self._process is not None
        try:
            return self._process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end: {self.output()}") from None

    def _visit_by_http(self, visits: int) -> int:
        """Visit from several threads at once; return by how many processes they were answered.

        In waves, so that servers get to recycle, which some do at their leisure.
        """
        eventually(self._is_up, what=f"up, see {self._log}")
        numbers = itertools.count()
        pids: set[int] = set()
        wave = visits // _WAVES
        for _ in range(_WAVES):
            with ThreadPoolExecutor(_CLIENTS) as clients:
                answered = set(clients.map(self._visit, itertools.islice(numbers, wave)))
            if self._case.recycles:
                eventually(lambda: any(map(_is_gone, answered)), what="recycled")  # noqa: B023
            pids |= answered
        return len(pids)

    def _visit(self, number: int) -> int:
        """Return which process answered.

        A server that recycles may close a connection instead. To the visitor, that visit did not
        happen; another one comes for it.
        """
        path = self._case.paths[number % len(self._case.paths)]
        for attempt in range(10):
            visitor = f"{os.getpid()}-{number}-{attempt}"
            if pid := self._get(path + visitor):
                self._visitors.add(visitor)
                return int(pid)
        raise AssertionError(self.output())

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output()
        return self._get("/") is not None

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_LIMIT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        assert answer.status == 200, body
        return body

    def _is_at_rest(self) -> bool:
        """Whether uWSGI replaces no worker, and will not without another request."""
        try:
            with socket.create_connection(("127.0.0.1", self._stats), _LIMIT_S) as connection:
                workers = json.load(connection.makefile())["workers"]
        except (OSError, ValueError):
            return False
        return all(
            worker["accepting"]
            and worker["status"] == "idle"
            and worker["delta_requests"] < self._case.max_requests
            for worker in workers
        )

    def _visit_by_celery(self, visits: int) -> int:
        self._visitors = {f"{os.getpid()}-{n}" for n in range(visits)}
        with Celery("visitors", broker=self._line.broker.url, set_as_current=False) as app:
            for visitor in self._visitors:
                app.send_task("visit", [visitor], queue="shop", ignore_result=True)
        client = self._line.broker.client()

        def all_began() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.output()
            return not client.llen("shop") and not client.hlen("unacked")

        eventually(all_began, what="every task began")
        return 0

    def _taken(self) -> Counter[str]:
        return Counter(
            event["uuid"]
            for received in self._line.collector.received[self._from :]
            if received.answer.status == 204
            for visitor, _, events in walk(received.params)
            if visitor["visitor_id"] in self._visitors
            for event in events
        )

    def stored(self) -> int:
        """How many events are in outbox files that nobody has open any more."""
        left = 0
        for path in Path(self.env["OPTLY_OUTBOX_DIR"]).glob("*/*.outbox"):
            found = Outbox(path, max_bytes=0, create=False)
            left += found.rows
            found.close()
        return left


def _is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()
