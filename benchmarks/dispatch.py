"""What dispatching one event costs the caller, next to two yardsticks.

Per call, in one process and one run, in alternating rounds against one embedded server:

- a raw redis-py ``LPUSH`` of the event's JSON, already made: the least a broker can cost;
- a plain Celery ``delay()`` of the task that most people write (`parts.send`), on its defaults;
- ``EventDispatcher.dispatch_event`` in direct mode;
- the same in outbox mode, its relay at work beside it; and with a broker that refuses, or that
  accepts and never answers.

Times depend on the machine; the ratios, medians over the rounds, hardly do.

    python benchmarks/dispatch.py [--rounds N] [--calls N] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import redis
from parts import EVENTS_URL, HEADERS, broker, free_port, params_of, plain, say, send, table

from optly_celery import flush, stats
from optly_celery.celery_app import standalone_app
from optly_celery.event_dispatcher import EventDispatcher

DIRECT_GOAL, OUTBOX_GOAL, TAIL_GOAL = 0.6, 0.6, 3.0

Call = Callable[[dict[str, Any]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=300, help="of each kind, per round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # two of the brokers are meant to be in trouble
    hung = socket.create_server(("127.0.0.1", 0), backlog=128)
    with broker() as url, hung, tempfile.TemporaryDirectory() as directory:
        urls = {
            "outbox": url,
            "outbox, broker down": f"redis://127.0.0.1:{free_port()}/0",
            "outbox, broker hung": f"redis://127.0.0.1:{hung.getsockname()[1]}/0",
        }
        results = measure(url, urls, directory, options.rounds, options.calls)
    print(json.dumps(results, indent=2) if options.json else as_table(results))


def measure(
    url: str, outbox_urls: dict[str, str], directory: str, rounds: int, calls: int
) -> dict[str, Any]:
    client = redis.Redis.from_url(url)
    samples: dict[str, list[list[float]]] = {}
    plain.conf.broker_url = url
    apps = {"direct": app_for(url, directory, "direct")}
    apps |= {name: app_for(at, directory, "outbox") for name, at in outbox_urls.items()}
    kinds: dict[str, Call] = {
        "lpush": lambda body: client.lpush("raw", body),
        "delay": lambda params: send.delay(EVENTS_URL, params, HEADERS),
    } | dict.fromkeys(apps, dispatch)
    for number in range(-1, rounds):  # round -1 opens connections and is not counted
        for name, call in kinds.items():
            events = [params_of(i) for i in range(calls)]
            if name in apps:
                apps[name].set_current()
            took = timed(call, [json.dumps(e) for e in events] if name == "lpush" else events)
            if number >= 0:
                samples.setdefault(name, []).append(took)
            if name == "outbox":
                flush(0.5)  # its relay is part of it, and not of what comes next
        client.flushall()
        say(f"round {number + 1} of {rounds}" if number >= 0 else "warm")
    wanted = (rounds + 1) * calls
    account = stats()
    if (account["published"], account["stored"]) != (wanted, wanted * len(outbox_urls)):
        raise SystemExit(f"not every event was taken: {account}")
    return summarise(samples)


def app_for(url: str, directory: str, delivery: str) -> Any:
    app = standalone_app()
    app.conf.update(broker_url=url, optly_delivery=delivery, optly_outbox_dir=directory)
    return app


def dispatch(params: dict[str, Any]) -> None:
    EventDispatcher.dispatch_event(
        SimpleNamespace(url=EVENTS_URL, params=params, http_verb="POST", headers=HEADERS)
    )


def timed(call: Callable[[Any], object], arguments: list[Any]) -> list[float]:
    took = []
    clock = time.perf_counter
    for argument in arguments:
        start = clock()
        call(argument)
        took.append(clock() - start)
    return took


def summarise(samples: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Microseconds over all rounds; ratios round by round, as a busy moment hits all three."""

    def ratio(name: str, base: str) -> float:
        pairs = zip(samples[name], samples[base], strict=True)
        return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)

    results: dict[str, Any] = {}
    for name, rounds in samples.items():
        cuts = statistics.quantiles([took for one in rounds for took in one], n=100)
        results[name] = {
            "p50_us": round(cuts[49] * 1e6, 1),
            "p99_us": round(cuts[98] * 1e6, 1),
            "p50_to_lpush": round(ratio(name, "lpush"), 2),
            "p50_to_delay": round(ratio(name, "delay"), 2),
        }
    return results


def as_table(results: dict[str, Any]) -> str:
    names = {"lpush": "raw LPUSH", "delay": "plain delay()", "direct": "dispatch_event, direct"}
    rows = [
        [
            names.get(name, f"dispatch_event, {name}"),
            f"{r['p50_us']:.0f} us",
            f"{r['p99_us']:.0f} us",
            f"{r['p50_to_lpush']:.2f}",
            f"{r['p50_to_delay']:.2f}",
            f"{r['p99_us'] / results['lpush']['p50_us']:.1f}",
        ]
        for name, r in results.items()
    ]
    tail = results["outbox"]["p99_us"] / results["lpush"]["p50_us"]
    goals = [
        ("direct, p50 / delay()", results["direct"]["p50_to_delay"], DIRECT_GOAL),
        ("outbox, p50 / LPUSH", results["outbox"]["p50_to_lpush"], OUTBOX_GOAL),
        ("outbox, p99 / LPUSH's p50", tail, TAIL_GOAL),
    ]
    verdicts = [
        f"goal: {what} at most {goal}: {'reached' if found <= goal else 'missed'} ({found:.2f})"
        for what, found, goal in goals
    ]
    head = ["per call", "p50", "p99", "p50 / LPUSH", "p50 / delay()", "p99 / LPUSH's p50"]
    return "\n".join([table(head, rows), "", *verdicts])


if __name__ == "__main__":
    main()
