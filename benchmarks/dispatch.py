"""What dispatching one event costs the caller, next to two yardsticks.

Per call, in one process and one run, in alternating rounds against one embedded server:

- a raw redis-py ``LPUSH`` of the event's JSON, already made: the least a broker can cost;
- a plain Celery ``delay()`` of the task that most people write (`parts.send`), on Celery's defaults;
- ``EventDispatcher.dispatch_event``.

Times depend on the machine; the ratios, medians over the rounds, hardly do.

    python benchmarks/dispatch.py [--rounds N] [--calls N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import redis
from parts import EVENTS_URL, HEADERS, broker, params_of, plain, say, send, table

from optly_celery import stats
from optly_celery.apps import standalone_app
from optly_celery.event_dispatcher import EventDispatcher

GOAL = 0.6

Call = Callable[[dict[str, Any]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=300, help="of each kind, per round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with broker() as url:
        results = measure(url, options.rounds, options.calls)
    print(json.dumps(results, indent=2) if options.json else as_table(results))


def measure(url: str, rounds: int, calls: int) -> dict[str, Any]:
    client = redis.Redis.from_url(url)
    samples: dict[str, list[list[float]]] = {}
    kinds = ways(url, client)
    for number in range(-1, rounds):  # round -1 opens connections and is not counted
        events = [params_of(i) for i in range(calls)]
        ready = [json.dumps(event) for event in events]
        for name, call in kinds.items():
            took = timed(call, ready if name == "lpush" else events)
            if number >= 0:
                samples.setdefault(name, []).append(took)
        client.flushall()
        say(f"round {number + 1} of {rounds}" if number >= 0 else "warm")
    published = stats()["published"]
    if published != (rounds + 1) * calls:
        raise SystemExit(f"dispatch_event published {published} events only")
    return summarise(samples)


def ways(url: str, client: redis.Redis) -> dict[str, Call]:
    plain.conf.broker_url = url
    app = standalone_app()
    app.conf.broker_url = url
    app.set_current()

    def dispatch(params: dict[str, Any]) -> None:
        EventDispatcher.dispatch_event(
            SimpleNamespace(url=EVENTS_URL, params=params, http_verb="POST", headers=HEADERS)
        )

    return {
        "lpush": lambda body: client.lpush("raw", body),
        "delay": lambda params: send.delay(EVENTS_URL, params, HEADERS),
        "dispatch_event": dispatch,
    }


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
    names = {"lpush": "raw LPUSH", "delay": "plain delay()", "dispatch_event": "dispatch_event"}
    rows = [
        [
            names[name],
            f"{r['p50_us']:.0f} us",
            f"{r['p99_us']:.0f} us",
            f"{r['p50_to_lpush']:.2f}",
            f"{r['p50_to_delay']:.2f}",
        ]
        for name, r in results.items()
    ]
    reached = results["dispatch_event"]["p50_to_delay"]
    verdict = "reached" if reached <= GOAL else "missed"
    return (
        table(["per call", "p50", "p99", "p50 / LPUSH", "p50 / delay()"], rows)
        + f"\n\ngoal: at most {GOAL} of the plain delay(): {verdict} ({reached:.2f})"
    )


if __name__ == "__main__":
    main()
