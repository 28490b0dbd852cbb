"""What an outage of the collector costs: this package's worker, and the plain task's with retries.

    python benchmarks/outage.py [--events 100000] [--seconds 60] [--rounds N] [--only plain]

A queue is filled with single tasks, and a worker delivers them. In each round the collector is well
for ``--window`` seconds, then answers 503, then refuses connections, then hangs, for a third of
``--seconds`` each, and then is well again. Printed are, for each worker:

* the most memory above idle, which is what it took just before the first outage, having delivered
  for a window: imports done, every thread started and connected; and the same at the outage's end;
* the most messages held unacked, and requests a second, from two seconds into the outage on;
* the longest time from the end of an outage to the first delivery;
* the rate from then on for a window, and what share that is of the rate of the window before the
  outage: of the medians of all rounds, since a shared machine is never the same for long; and the
  worker's CPU time an event in those windows, which depends less on what else the machine does;
* posts that were answered 503 or hung, the median of all rounds;
* where the queue was emptied within ``--drain`` seconds, events that were lost, and posts that were
  answered 2xx again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
import requests
from celery import Celery
from collector import CountingCollector, State
from parts import EVENTS_URL, HEADERS, Worker, broker, fill_with_copies, params_of, say, table

from optly_celery import dispatch
from optly_celery.celery import app as standalone

plain = Celery("plain", broker=os.environ.get("PLAIN_BROKER_URL"), set_as_current=False)
WAYS = ("optly_celery", "plain")
FIRST_DELIVERY_LIMIT_S = 600.0


@plain.task(
    name="send",
    ignore_result=True,
    acks_late=True,
    autoretry_for=(requests.RequestException,),
    retry_backoff=True,
    max_retries=None,
)
def send(url: str, params: dict[str, Any], headers: dict[str, str]) -> None:
    """What most people write who want retries."""
    requests.post(url, json=params, headers=headers, timeout=10).raise_for_status()


@dataclass
class Figures:
    """What was seen of one worker, round by round."""

    idle_mb: float = 0.0
    most_mb: float = 0.0
    last_mb: float = 0.0
    unacked: int = 0
    asked_per_s: float = 0.0
    failed: list[int] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    healthy: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    healthy_cpu_ms: list[float] = field(default_factory=list)
    after_cpu_ms: list[float] = field(default_factory=list)
    lost: int | None = None
    twice: int | None = None

    def row(self) -> list[str]:
        healthy, after = statistics.median(self.healthy), statistics.median(self.after)
        return [
            f"{self.most_mb - self.idle_mb:+.0f}",
            f"{self.last_mb - self.idle_mb:+.0f}",
            f"{self.unacked:,}",
            f"{self.asked_per_s:.1f}",
            f"{max(self.first_s):.1f}",
            f"{healthy:.0f}",
            f"{after:.0f}",
            f"{100 * after / healthy:.0f} %",
            f"{statistics.median(self.healthy_cpu_ms):.2f}",
            f"{statistics.median(self.after_cpu_ms):.2f}",
            f"{statistics.median(self.failed):.0f}",
            "?" if self.lost is None else str(self.lost),
            "?" if self.twice is None else str(self.twice),
        ]


HEAD = [
    "", "most MB", "last MB", "unacked", "asked /s", "first s", "healthy /s", "after /s", "share",
    "CPU ms", "after", "failed", "lost", "twice",
]  # fmt: skip


def main() -> None:
    options = parse()
    rows = []
    for way in [options.only] if options.only else WAYS:
        with (
            broker() as url,
            CountingCollector(options.latency / 1000, watched=options.events) as collector,
        ):
            say(f"{way}: filling the queue with {options.events:,} events")
            fill(way, url, collector.url, options.events)
            app = "outage:plain" if way == "plain" else "optly_celery"
            env = {"OPTLY_BROKER_URL": url, "OPTLY_URL_OVERRIDE": collector.url}
            env |= {"PLAIN_BROKER_URL": url, "PYTHONPATH": "."}
            with Worker(app, "--loglevel", "error", *options.worker, env=env) as worker:
                found = Measurement(worker, url, collector, options).all_rounds(way)
            rows.append([way, *found.row()])
    print(table(HEAD, rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of an outage")
    parser.add_argument("--window", type=float, default=8.0, help="seconds that a rate is taken of")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", type=int, default=60, metavar="MS", help="of the collector")
    parser.add_argument("--drain", type=float, default=0.0, help="wait so long for an empty queue")
    parser.add_argument("--only", choices=WAYS)
    parser.add_argument("worker", nargs="*", metavar="-- WORKER OPTION")
    return parser.parse_args()


def fill(way: str, url: str, target: str, count: int) -> None:
    plain.conf.broker_url = standalone.conf.broker_url = url
    standalone.set_current()
    if way == "plain":
        send.delay(target, params_of(0), HEADERS)
    else:
        dispatch(EVENTS_URL, params_of(0), headers=HEADERS)
    queue = plain.conf.task_default_queue if way == "plain" else "optimizely"
    fill_with_copies(redis.Redis.from_url(url), queue, count)


class Measurement:
    """Rounds of well and away with one worker, while its memory and messages are watched."""

    def __init__(
        self, worker: Worker, url: str, collector: CountingCollector, options: argparse.Namespace
    ) -> None:
        self._worker, self._collector, self._options = worker, collector, options
        self._client = redis.Redis.from_url(url)
        self.found = Figures()

    def all_rounds(self, way: str) -> Figures:
        self._until(lambda: self._collector.delivered() > 500, 120)
        for number in range(self._options.rounds):
            self._round(is_first=number == 0)
            say(f"{way}, round {number + 1} of {self._options.rounds}: {self.found}")
        if self._options.drain:
            self._until(self._is_empty, self._options.drain, every_s=2.0)
            if self._is_empty():
                self.found.lost, self.found.twice = self._collector.lost_and_twice()
        return self.found

    def _round(self, *, is_first: bool) -> None:
        options, collector, found = self._options, self._collector, self.found
        self._rate(found.healthy, found.healthy_cpu_ms)
        if is_first:
            found.idle_mb = found.most_mb = self._worker.rss_mb()

        down = time.monotonic()
        for part, state in enumerate((State.ANSWERS_503, State.REFUSES, State.HANGS), 1):
            collector.become(state)
            self._watch(min(down + 2, down + part * options.seconds / 3))
            self._watch(down + part * options.seconds / 3, count_unacked=True)
        found.last_mb = self._worker.rss_mb()
        collector.become(State.WELL)
        healed = time.monotonic()
        # Those refused are not seen; those of the first two seconds were under way.
        asked = collector.asked(down + 2, healed)
        found.asked_per_s = max(found.asked_per_s, asked / (options.seconds - 2))
        found.failed.append(collector.asked(down, healed))

        self._until(lambda: collector.delivered(healed) > 0, FIRST_DELIVERY_LIMIT_S)
        found.first_s.append(collector.first(healed) - healed)
        self._rate(found.after, found.after_cpu_ms)

    def _rate(self, per_s: list[float], cpu_ms: list[float]) -> None:
        began, cpu_s = time.monotonic(), self._worker.cpu_s()
        self._watch(began + self._options.window)
        count, took_s = self._collector.delivered(began), time.monotonic() - began
        per_s.append(count / took_s)
        cpu_ms.append(1000 * (self._worker.cpu_s() - cpu_s) / max(count, 1))

    def _watch(self, until: float, *, count_unacked: bool = False) -> None:
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            self.found.most_mb = max(self.found.most_mb, self._worker.rss_mb())
            if count_unacked:
                self.found.unacked = max(self.found.unacked, self._client.hlen("unacked"))

    def _until(self, done: Callable[[], bool], limit_s: float, every_s: float = 0.1) -> None:
        ends = time.monotonic() + limit_s
        while not done() and time.monotonic() < ends:
            self._watch(time.monotonic() + every_s)

    def _is_empty(self) -> bool:
        queues = ("optimizely", plain.conf.task_default_queue)
        return not self._client.hlen("unacked") and not any(map(self._client.llen, queues))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["XDG_STATE_HOME"] = home
        main()
