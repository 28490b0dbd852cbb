"""How much memory of the broker one queued event takes.

Distinct, realistic events (uuids, timestamps, five attributes), each way into a queue of its own:
the plain Celery task that most people write, direct mode, and outbox mode with its batches.
Redis' own figure (``MEMORY USAGE`` of the queue's list, all samples) divided by the events.

    python benchmarks/queue_size.py [--events N] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import uuid
from typing import Any

import redis
from parts import EVENTS_URL, HEADERS, broker, params_of, plain, say, send, table

from optly_celery import dispatch, flush, stats
from optly_celery.celery_app import standalone_app

GOAL = 0.1


def visitor_params(number: int) -> dict[str, Any]:
    """As `params_of`, with a visitor id and attribute values that differ as real ones do."""
    params = params_of(number)
    (visitor,) = params["visitors"]
    visitor["visitor_id"] = str(uuid.uuid4())
    plan = random.choice(["free", "pro", "team"])
    country = random.choice(["DE", "FR", "GB", "IN", "NL", "US"])
    for attribute, value in zip(visitor["attributes"], (plan, country), strict=False):
        attribute["value"] = value
    event = visitor["snapshots"][0]["events"][0]
    event["timestamp"] = 1_700_000_000_000 + number * 37 + random.randrange(30)
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with broker() as url, tempfile.TemporaryDirectory() as directory:
        results = measure(url, directory, options.events)
    print(json.dumps(results, indent=2) if options.json else as_table(results))


def measure(url: str, directory: str, events: int) -> dict[str, float]:
    client = redis.Redis.from_url(url)
    plain.conf.broker_url = url
    results = {}
    say("plain task")
    for number in range(events):
        send.delay(EVENTS_URL, visitor_params(number), HEADERS)
    results["plain Celery task"] = size_of(client, "celery") / events
    for delivery in ("direct", "outbox"):
        say(delivery)
        app = standalone_app()
        app.conf.update(broker_url=url, optly_delivery=delivery, optly_outbox_dir=directory)
        app.set_current()
        client.delete("optimizely")
        for number in range(events):
            dispatch(EVENTS_URL, visitor_params(number), headers=HEADERS)
        flush(30)
        results[delivery] = size_of(client, "optimizely") / events
    account = stats()
    if (account["published"], account["relayed"]) != (events, events):
        raise SystemExit(f"not every event was published: {account}")
    return results


def size_of(client: redis.Redis, key: str) -> float:
    return float(client.memory_usage(key, samples=0))


def as_table(results: dict[str, float]) -> str:
    base = results["plain Celery task"]
    rows = [[name, f"{size:,.0f} B", f"{size / base:.2f}"] for name, size in results.items()]
    reached = results["outbox"] / base
    verdict = "reached" if reached <= GOAL else "missed"
    return (
        table(["a queued event", "memory", "of the plain task's"], rows)
        + f"\n\ngoal: outbox mode at most {GOAL} of the plain task: {verdict} ({reached:.3f})"
    )


if __name__ == "__main__":
    main()
