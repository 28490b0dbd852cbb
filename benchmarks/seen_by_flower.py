"""Whether Flower shows every task that a worker has done, for each pool.

The queue is filled, then a worker empties it while Flower listens; what Flower's HTTP API lists
afterwards, by state, stands beside what the collector received. Needs the extra ``flower``.

    python benchmarks/seen_by_flower.py [--pools threads:64 prefork:4] [--events N] [--json]

An option after ``--`` goes to every worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import requests
from collector import CountingCollector
from parts import (
    EVENTS_URL,
    HEADERS,
    Worker,
    broker,
    free_port,
    params_of,
    say,
    table,
    wait_for,
)

from optly_celery import dispatch, stats
from optly_celery.celery_app import standalone_app

SETTLED_S = 3.0
LIMIT_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pools", nargs="+", default=["threads:64"], metavar="POOL:CONCURRENCY")
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--latency", type=int, default=0, metavar="MS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("worker", nargs="*", metavar="-- WORKER OPTION")
    options = parser.parse_args()
    results = {}
    for pool in options.pools:
        with broker() as url, tempfile.TemporaryDirectory() as directory:
            results[pool] = look(url, directory, pool, options)
        say(f"{pool}: {results[pool]}")
    print(json.dumps(results, indent=2) if options.json else as_table(results))


def look(url: str, directory: str, pool: str, options: argparse.Namespace) -> dict[str, Any]:
    name, _, size = pool.partition(":")
    app = standalone_app()
    app.conf.update(broker_url=url, optly_outbox_dir=directory)
    app.set_current()
    for number in range(options.events):
        dispatch(EVENTS_URL, params_of(number), headers=HEADERS)
    if stats()["dropped"]:
        raise SystemExit(f"the queue was not filled: {stats()}")
    arguments = ["--pool", name, "--concurrency", size, *options.worker]
    with CountingCollector(options.latency / 1000) as collector, flower(url) as api:
        env = {"OPTLY_BROKER_URL": url, "OPTLY_URL_OVERRIDE": collector.url}
        with Worker("optly_celery", *arguments, env=env) as worker:
            deadline = time.monotonic() + LIMIT_S
            while collector.events < options.events and time.monotonic() < deadline:
                if not worker.is_alive():
                    raise SystemExit(f"the worker died:\n{worker.log()}")
                time.sleep(0.05)
            states = settled(api, options.events)
        return {"delivered": collector.events, "shown": sum(states.values()), **states}


@contextlib.contextmanager
def flower(broker_url: str) -> Iterator[str]:
    """Flower for the standalone app; gives the URL of its API."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "optly_celery", "flower", f"--port={port}"],
        env=os.environ
        | {"OPTLY_BROKER_URL": broker_url, "FLOWER_UNAUTHENTICATED_API": "true"}
        | {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_INSPECT_TIMEOUT": "100"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.kill()
        process.wait()


def settled(api: str, wanted: int) -> Counter[str]:
    """What Flower lists, by state, once that is all, or changes no more."""
    states: Counter[str] = Counter()
    since = time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(0.2)
        tasks = requests.get(f"{api}/tasks", timeout=60).json()
        found = Counter(task["state"] for task in tasks.values())
        if found != states:
            states, since = found, time.monotonic()
        if states["SUCCESS"] == wanted:
            break
    return states


def as_table(results: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            pool,
            str(r["delivered"]),
            str(r["shown"]),
            str(r.get("SUCCESS", 0)),
            str(r["delivered"] - r.get("SUCCESS", 0)),
        ]
        for pool, r in results.items()
    ]
    return table(["pool", "delivered", "shown", "as SUCCESS", "missing"], rows)


if __name__ == "__main__":
    main()
