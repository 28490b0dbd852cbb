"""A stand-in for Optimizely that runs on its own and says what it got.

``python -m optly_celery.demo.stand_in --port 9000``; POST events to ``/v1/events``, GET what came
of them from ``/``, as JSON: the count of ``events`` by uuid, of ``refused`` requests, and for each
flag and variation how many ``visitors`` it has and how many of them have ``converted``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections import Counter, defaultdict
from typing import Any

from ..errors import OptlyCeleryError
from ..event.payload import uuids_of
from ..testing.records import Decision, read
from ..testing.schema import strict_check
from ..testing.server import Answer, Server


class Results:
    """What the events of an experiment say. Remembers every visitor: this is for demonstrations."""

    def __init__(self) -> None:
        self._uuids: set[str] = set()
        self._refused = 0
        self._chosen: dict[str, dict[str, str]] = defaultdict(dict)  # flag, visitor, variation
        self._converted: set[str] = set()

    def take(self, params: Any) -> None:
        """Count what the Event API would take; again or not, as there an event counts once."""
        self._uuids.update(uuids_of(params))
        for found in read(params):
            if isinstance(found, Decision):
                self._chosen[found.flag_key][found.user_id] = found.variation_key
            else:
                self._converted.add(found.user_id)

    def refuse(self) -> None:
        """Count a request that was answered 400."""
        self._refused += 1

    def as_dict(self) -> dict[str, Any]:
        """The results, for a JSON document."""
        flags = {}
        for flag, chosen in self._chosen.items():
            visitors = Counter(chosen.values())
            converted = Counter(v for who, v in chosen.items() if who in self._converted)
            flags[flag] = {
                variation: {"visitors": count, "converted": converted[variation]}
                for variation, count in sorted(visitors.items())
            }
        return {"events": len(self._uuids), "refused": self._refused, "flags": flags}


class StandIn(Server):
    """A strict collector that answers GET with its `Results`; keeps no requests."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._strict = strict_check()
        self._results = Results()
        super().__init__(host=host, port=port, choose=self._choose, keep=False)

    def _choose(self, method: str, _target: str, body: bytes) -> Answer:
        if method != "POST":
            text = json.dumps(self._results.as_dict()).encode()
            return Answer(200, {"Content-Type": "application/json"}, body=text)
        if not self._strict(body):
            self._results.refuse()
            return Answer(400)
        self._results.take(json.loads(body))
        return Answer(204)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m optly_celery.demo.stand_in")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with StandIn(host=given.host, port=given.port) as running:
            print(running.url, flush=True)  # noqa: T201 - where to POST
            ended.wait()
    except OptlyCeleryError as exc:
        sys.exit(f"Error: {exc}.")


if __name__ == "__main__":
    main()
