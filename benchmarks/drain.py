"""How fast events get delivered, and what that costs: as recommended, and the plain way.

Three workers empty a queue that was filled before, against a collector that answers after
``--latency`` ms: the plain one runs the task that most people write (`parts.send`) on Celery's
defaults, prefork with a process a core; the recommended one is ``celery -A optly_celery worker``
as the package configures it: with a task for each event, the same with a worker a core (it is one
process, the plain one has one for each core), and with batches, as outbox mode makes them.
Counted are events that arrive from when 10 % have until 90 % have, or for ``--seconds``; CPU is
user and system time of the worker and its children in that window, so it wants Linux.

Then outbox mode end to end: this process dispatches ``--end-to-end`` events while the worker runs,
and what counts is the time from the first dispatch to the last arrival, with the CPU of both.

    python benchmarks/drain.py [--latency 0 60] [--events N] [--rounds N] [--json]

The pool study of docs/decisions/0002-worker-pool.md:

    python benchmarks/drain.py --no-plain --end-to-end 0 --pools processes:16 threads:64 gevent:64

Celery takes ``--pool prefork`` for "not given", so prefork goes by its other name, processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import redis
from collector import CountingCollector
from parts import (
    EVENTS_URL,
    HEADERS,
    Worker,
    Workers,
    broker,
    median_round,
    params_of,
    plain,
    say,
    send,
    table,
)

from optly_celery import close, dispatch, flush, stats
from optly_celery.celery_app import standalone_app

GOALS = {0: 1.3, 60: 25.0}
END_TO_END = "outbox, end to end"
END_TO_END_PER_S, END_TO_END_CPU_US = 15_000, 80
TASK, BATCHES = "recommended, a task an event", "recommended, batches"
CORES = f"{TASK}, a worker a core"
PLAIN_PER_S = 500  # enough events to keep it busy: more than it was ever seen to deliver


@dataclass(frozen=True)
class Way:
    """A worker to measure: the plain one, or the recommended one with options over it."""

    name: str
    options: tuple[str, ...] = ()
    is_plain: bool = False
    batches: bool = False
    workers: int = 1


def main() -> None:
    options = parse()
    ways = ways_of(options)
    results: list[dict[str, Any]] = []
    with broker() as url, tempfile.TemporaryDirectory() as directory:
        fill = Filler(url, directory)
        for latency_ms in options.latency:
            rounds: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
            for number in range(options.rounds):
                for way in ways:
                    figures = drain(way, url, fill, latency_ms, options)
                    rounds[way.name].append(figures)
                    say(
                        f"{latency_ms} ms, round {number + 1} of {options.rounds}, {way.name}: "
                        f"{figures['per_s']:.0f} a second"
                    )
            for name, taken in rounds.items():
                results.append({"latency_ms": latency_ms, "worker": name, **median_round(taken)})
        for latency_ms in options.latency if options.end_to_end else ():
            figures = end_to_end(url, fill, latency_ms, options.end_to_end)
            results.append({"latency_ms": latency_ms, "worker": END_TO_END, **figures})
            say(f"{latency_ms} ms, end to end: {figures['per_s']:.0f} a second")
    compare(results)
    print(json.dumps(results, indent=2) if options.json else as_table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=int, nargs="+", default=[0, 60], metavar="MS")
    parser.add_argument("--events", type=int, default=5000, help="in the queue at the start")
    parser.add_argument("--seconds", type=float, default=10.0, help="measure at most so long")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end-to-end", type=int, default=50_000, help="events; 0 leaves it out")
    parser.add_argument("--pools", nargs="+", default=[], metavar="POOL:CONCURRENCY")
    parser.add_argument("--prefetch", type=int, nargs="+", default=[], metavar="MULTIPLIER")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain worker out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("worker", nargs="*", metavar="-- WORKER OPTION")
    return parser.parse_args()


def ways_of(options: argparse.Namespace) -> list[Way]:
    extra = tuple(options.worker)
    cores = os.cpu_count() or 1
    ours = [Way(TASK, extra), Way(CORES, extra, workers=cores), Way(BATCHES, extra, batches=True)]
    if options.pools:
        ours = [
            Way(f"{pool} {size}", ("--pool", pool, "--concurrency", size, *extra))
            for pool, _, size in (text.partition(":") for text in options.pools)
        ]
    if options.prefetch:
        ours = [
            Way(f"{way.name}, prefetch {n}", (*way.options, "--prefetch-multiplier", str(n)))
            for way in ours
            for n in options.prefetch
        ]
    return ours if options.no_plain else [Way("plain", is_plain=True), *ours]


class Filler:
    """Fills the queue with what each worker is made for."""

    def __init__(self, url: str, directory: str) -> None:
        self._client = redis.Redis.from_url(url)
        plain.conf.broker_url = url
        self._apps = {}
        for delivery in ("direct", "outbox"):
            app = self._apps[delivery] = standalone_app()
            app.conf.update(broker_url=url, optly_delivery=delivery, optly_outbox_dir=directory)

    def fill(self, way: Way, url: str, count: int) -> None:
        self._client.flushall()
        self.use("outbox" if way.batches else "direct")
        for i in range(count):
            if way.is_plain:
                send.delay(url, params_of(i), HEADERS)
            else:
                dispatch(EVENTS_URL, params_of(i), headers=HEADERS)
        flush(60)
        if stats()["dropped"] or stats()["outbox"]["rows"]:
            raise SystemExit(f"the queue was not filled: {stats()}")

    def use(self, delivery: str) -> None:
        self._apps[delivery].set_current()

    def empty(self) -> None:
        self._client.flushall()


def drain(
    way: Way, url: str, filler: Filler, latency_ms: int, options: argparse.Namespace
) -> dict[str, float]:
    with CountingCollector(latency_ms / 1000) as collector:
        count = options.events
        if way.is_plain and latency_ms:
            count = min(count, int(PLAIN_PER_S * options.seconds * 10 / latency_ms))
        if way.batches:
            count *= 10
        filler.fill(way, collector.url, count)
        env = {"OPTLY_BROKER_URL": url, "OPTLY_URL_OVERRIDE": collector.url}
        env["PLAIN_BROKER_URL"] = url
        app = "parts:plain" if way.is_plain else "optly_celery"
        with Workers(way.workers, app, *way.options, env=env) as w:
            return window(w, collector, count, options.seconds)


def end_to_end(url: str, filler: Filler, latency_ms: int, count: int) -> dict[str, float]:
    """Dispatch in this process while the worker delivers; from first to last."""
    filler.empty()
    filler.use("outbox")
    with CountingCollector(latency_ms / 1000) as collector:
        env = {"OPTLY_BROKER_URL": url, "OPTLY_URL_OVERRIDE": collector.url}
        with Worker("optly_celery", env=env) as worker:
            events = [params_of(i) for i in range(count)]
            dispatch(EVENTS_URL, params_of(count), headers=HEADERS)  # one to see it ready
            while collector.events < 1:
                time.sleep(0.05)
            cpu_before, own_before = worker.cpu_s(), time.process_time()
            start_s = time.perf_counter()
            for params in events:
                dispatch(EVENTS_URL, params, headers=HEADERS)
            deadline = time.perf_counter() + 120
            while collector.events <= count and time.perf_counter() < deadline:
                time.sleep(0.005)
            took_s = time.perf_counter() - start_s
            cpu_s = worker.cpu_s() - cpu_before + time.process_time() - own_before
            if collector.events <= count:
                raise SystemExit(f"{collector.events} of {count} arrived: {stats()}")
            memory = round(worker.rss_mb(), 1)
    close(5)
    return {
        "per_s": round(count / took_s, 1),
        "cpu_s_per_1000": round(cpu_s / count * 1000, 3),
        "rss_mb": memory,
    }


def window(
    worker: Workers, collector: CountingCollector, count: int, limit_s: float
) -> dict[str, float]:
    """Look at the worker when a tenth of the events have arrived, and when nine tenths have."""

    def reach(goal: float, deadline: float) -> tuple[float, int, float]:
        while collector.events < goal and time.perf_counter() < deadline:
            if not worker.is_alive():
                raise SystemExit(f"the worker died:\n{worker.log()}")
            time.sleep(0.005)
        return time.perf_counter(), collector.events, worker.cpu_s()

    start_s, first, cpu_before = reach(min(count * 0.1, 500), time.perf_counter() + 60)
    end_s, last, cpu_after = reach(count * 0.9, time.perf_counter() + limit_s)
    if last == first:
        raise SystemExit(f"nothing arrived:\n{worker.log()}")
    return {
        "per_s": round((last - first) / (end_s - start_s), 1),
        "cpu_s_per_1000": round((cpu_after - cpu_before) / (last - first) * 1000, 3),
        "rss_mb": round(worker.rss_mb(), 1),
    }


def compare(results: list[dict[str, Any]]) -> None:
    """Put each worker beside the plain one at the same latency."""
    base = {r["latency_ms"]: r for r in results if r["worker"] == "plain"}
    for r in results:
        if found := base.get(r["latency_ms"]):
            r["per_s_to_plain"] = round(r["per_s"] / found["per_s"], 2)
            r["cpu_to_plain"] = round(r["cpu_s_per_1000"] / found["cpu_s_per_1000"], 2)


def as_table(results: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{r['latency_ms']} ms, {r['worker']}",
            f"{r['per_s']:.0f}",
            f"{r['per_s_to_plain']:.2f}" if "per_s_to_plain" in r else "",
            f"{r['cpu_s_per_1000']:.3g} s",
            f"{r['cpu_to_plain']:.2f}" if "cpu_to_plain" in r else "",
            f"{r['rss_mb']:.0f} MB",
        ]
        for r in results
    ]
    head = ["collector, worker", "events/s", "to plain", "CPU/1000", "to plain", "memory"]
    lines = [table(head, rows), ""]
    for r in results:
        goal = GOALS.get(r["latency_ms"])
        if r["worker"] in (TASK, CORES) and goal and "per_s_to_plain" in r:
            verdict = "reached" if r["per_s_to_plain"] >= goal else "missed"
            lines.append(
                f"goal at {r['latency_ms']} ms: {goal:g} times the plain worker: {verdict} "
                f"({r['per_s_to_plain']:.2f}) by {r['worker']}"
            )
        if r["worker"] == END_TO_END:
            cpu_us = r["cpu_s_per_1000"] * 1000
            reached = r["per_s"] >= END_TO_END_PER_S and cpu_us <= END_TO_END_CPU_US
            lines.append(
                f"goal at {r['latency_ms']} ms: {END_TO_END}, {END_TO_END_PER_S:,} a second and "
                f"{END_TO_END_CPU_US} CPU us an event: {'reached' if reached else 'missed'} "
                f"({r['per_s']:,.0f}; {cpu_us:.0f})"
            )
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    main()
