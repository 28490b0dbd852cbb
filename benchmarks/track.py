"""What ``track`` costs the request, and how much of a burst of it arrives.

10,000 ``track`` calls in a loop in outbox mode, through ``create_client``: what each costs, beside
the same loop before a dispatcher that does nothing, in turns of 500 calls, so that a machine that
slows down meanwhile slows them all. No worker runs; what arrived is counted in the broker's queue.
The SDK's default processor drops what its queue of 1,000 does not hold: see benchmarks/burst.py.

    python benchmarks/track.py [--events N] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from importlib import resources
from typing import Any

import redis
from burst import PlainDispatcher, events_in
from celery import Celery
from optimizely.event.event_processor import ForwardingEventProcessor
from optimizely.optimizely import Optimizely
from parts import broker, plain, say, table

import optly_celery

TURN = 500


class NothingDispatcher:
    @staticmethod
    def dispatch_event(event: Any) -> None:
        pass


def turn(client: Any, first: int) -> list[float]:
    """Seconds of each of ``TURN`` calls."""
    clock, times = time.perf_counter, []
    for number in range(first, first + TURN):
        started = clock()
        client.track("purchase", f"visitor-{number}", event_tags={"revenue": 4200})
        times.append(clock() - started)
    return times


def microseconds(times: list[float], share: float) -> float:
    return sorted(times)[int(len(times) * share)] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the SDK warns of each event that it drops
    datafile = resources.files("optly_celery.demo").joinpath("datafile.json").read_text("utf-8")

    with broker() as url, tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        plain.conf.broker_url = url
        app = Celery("track", broker=url)
        app.conf.update(task_ignore_result=True, optly_delivery="outbox")
        forwarding = ForwardingEventProcessor(NothingDispatcher)
        ours = "create_client, outbox"
        clients: dict[str, Any] = {
            ours: optly_celery.create_client(datafile=datafile),
            "create_client, a dispatcher that does nothing": optly_celery.create_client(
                datafile=datafile, event_dispatcher=NothingDispatcher
            ),
            "SDK's ForwardingEventProcessor, the same": Optimizely(
                datafile, event_processor=forwarding
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in clients}
        say("in turns: " + "; ".join(clients))
        for first in range(0, options.events, TURN):
            for name, client in clients.items():
                times[name] += turn(client, first)
        for client in clients.values():
            client.close()
        broker_client = redis.Redis.from_url(url)
        lost = {ours: options.events - events_in(broker_client, "optimizely")}

        default = "SDK's default processor, plain Celery"  # alone: its thread would slow the others
        say(f"{default} …")
        client = Optimizely(datafile, event_dispatcher=PlainDispatcher)
        times[default] = [
            second for first in range(0, options.events, TURN) for second in turn(client, first)
        ]
        client.close()
        lost[default] = options.events - events_in(broker_client, "celery")

    rows = [
        {"name": name, "p50_us": microseconds(found, 0.5), "p99_us": microseconds(found, 0.99),
         "lost": lost.get(name)}
        for name, found in times.items()
    ]  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{options.events:,} track calls in a loop, then close()\n")
    print(
        table(
            ["", "p50 µs", "p99 µs", "lost"],
            [
                [
                    row["name"], f"{row['p50_us']:.1f}", f"{row['p99_us']:.1f}",
                    "" if row["lost"] is None else f"{row['lost']:,}",
                ]
                for row in rows
            ],
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
