"""How much of a burst arrives behind each of the SDK's event processors.

10,000 ``track`` calls in a loop, then ``close()``, counted in the broker's queue; no worker runs.
The plain dispatcher is the one that most people write, a Celery ``delay()`` for each event.

    python benchmarks/burst.py [--events N] [--json]
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import time
import zlib
from importlib import resources
from typing import Any

import redis
from celery import Celery
from optimizely import optimizely
from optimizely.event.event_processor import ForwardingEventProcessor
from parts import broker, plain, say, send

from optly_celery import EventDispatcher
from optly_celery.event.payload import uuids_of


class PlainDispatcher:
    @staticmethod
    def dispatch_event(event: Any) -> None:
        send.delay(event.url, event.params, event.headers)


def events_in(client: redis.Redis, queue: str) -> int:
    """Events in a queue: the SDK's own processor puts ten into a message, the relay a hundred."""
    found = 0
    for text in client.lrange(queue, 0, -1):
        message = json.loads(text)
        body = base64.b64decode(message["body"])
        if "compression" in message["headers"]:
            body = zlib.decompress(body)
        args = json.loads(body)[0]
        # [url, params, headers] of the plain task; [url, verb, params] of ours, as text if a batch
        params = next((value for value in args if isinstance(value, dict)), None)
        found += len(uuids_of(params or json.loads(args[2])))
    return found


def burst(events: int, **sdk_arguments: Any) -> float:
    datafile = resources.files("optly_celery.demo").joinpath("datafile.json").read_text("utf-8")
    client = optimizely.Optimizely(datafile, logger=None, **sdk_arguments)
    started = time.perf_counter()
    for number in range(events):
        client.track("purchase", f"visitor-{number}", event_tags={"revenue": 4200})
    took_s = time.perf_counter() - started
    client.close()
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the SDK warns of each event that it drops

    rows = []
    with broker() as url:
        plain.conf.broker_url = url
        app = Celery("burst", broker=url)
        app.conf.task_ignore_result = True
        client = redis.Redis.from_url(url)
        for name, queue, arguments in (
            ("SDK's processor, plain dispatcher", "celery", {"event_dispatcher": PlainDispatcher}),
            (
                "SDK's processor, EventDispatcher",
                "optimizely",
                {"event_dispatcher": EventDispatcher},
            ),
            (
                "ForwardingEventProcessor(EventDispatcher)",
                "optimizely",
                {"event_processor": ForwardingEventProcessor(EventDispatcher)},
            ),
        ):
            say(f"{name} …")
            client.flushall()
            took_s = burst(options.events, **arguments)
            arrived = events_in(client, queue)
            rows.append(
                {"name": name, "arrived": arrived, "lost": options.events - arrived,
                 "track_us": took_s / options.events * 1e6}
            )  # fmt: skip
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{options.events:,} track calls in a loop, then close()\n")
    for row in rows:
        print(
            f"{row['name']:<42} arrived {row['arrived']:>6,}   lost {row['lost']:>6,}"
            f"   {row['track_us']:>5.0f} µs a track"
        )


if __name__ == "__main__":
    main()
