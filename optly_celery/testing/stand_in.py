"""A collector that runs on its own: ``python -m optly_celery.testing.stand_in --port 9000``.

It prints where to POST events, answers as the Event API does in strict mode, and takes orders and
questions by HTTP:

- ``GET /`` tells what came of the events, as JSON: the count of ``events`` by uuid, of ``refused``
  requests, and for each of ``flags`` and its variations how many ``visitors`` it has and how many
  of them have ``converted``;
- ``GET /posts`` tells of every POST how it was answered and the uuids in it, ``[[status, uuids],
  …]``; ``/posts?from=17`` leaves out the first 17;
- ``PUT /script`` with ``[[status, delay_s], …]`` sets the answers to the next POSTs, in place of
  those that were set before; a status of null closes the connection instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from ..errors import OptlyCeleryError
from ..event.payload import uuids_of
from .records import Decision, read
from .schema import strict_check
from .server import Answer, Choice, Server, json_of

_POSTS = re.compile(r"/posts(?:\?from=(\d+))?")


class StandIn(Server):
    """The program's server; remembers every visitor and uuid: for demonstrations.

    Raises:
        SettingsError: jsonschema is not installed; ``strict=False`` does without.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        strict: bool = True,
        choose: Choice | None = None,
    ) -> None:
        accepts = strict_check() if strict else None
        super().__init__(host=host, port=port, choose=choose, accepts=accepts, keep=False)
        self._posts: list[tuple[int | None, list[str]]] = []
        self._chosen: dict[str, dict[str, str]] = defaultdict(dict)  # flag, visitor, variation
        self._converted: set[str] = set()

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        if method == "PUT":
            return self._obey(target, body)
        if method != "POST":
            asked = _POSTS.fullmatch(target)
            return _told(self._posts[int(asked[1] or 0) :] if asked else self._results())
        answer = super().answer(method, target, body)
        params = json_of(body)
        self._posts.append((answer.status, uuids_of(params)))
        for found in read(params) if _is_taken(answer.status) else ():
            # As text: a collector that is not strict takes anything for an id or a key.
            if isinstance(found, Decision):
                self._chosen[str(found.flag_key)][str(found.user_id)] = str(found.variation_key)
            else:
                self._converted.add(str(found.user_id))
        return answer

    def _results(self) -> dict[str, Any]:
        flags = {}
        for flag, chosen in self._chosen.items():
            visitors = Counter(chosen.values())
            converted = Counter(v for who, v in chosen.items() if who in self._converted)
            flags[flag] = {
                variation: {"visitors": count, "converted": converted[variation]}
                for variation, count in sorted(visitors.items())
            }
        # Taken again or not, as with the Event API an event counts once.
        events = {u for status, uuids in self._posts if _is_taken(status) for u in uuids}
        refused = sum(status == 400 for status, _ in self._posts)
        return {"events": len(events), "refused": refused, "flags": flags}

    def _obey(self, target: str, body: bytes) -> Answer:
        try:
            answers = [Answer(status, delay_s=float(delay_s)) for status, delay_s in json_of(body)]
        except (TypeError, ValueError):
            return Answer(400)
        if target != "/script":
            return Answer(404)
        self.script(*answers, anew=True)
        return Answer(204)


def outage(
    *, starts_at: int, lasts_s: float, clock: Callable[[], float] = time.monotonic
) -> Choice:
    """A choice of 503 for ``lasts_s`` from request number ``starts_at`` on.

    Driven by what arrives, so it is in the middle however fast the machine is.
    """
    numbers = itertools.count(1)
    ends_at = float("-inf")

    def choose(_method: str, _target: str, _body: bytes) -> Answer | None:
        nonlocal ends_at
        if next(numbers) == starts_at:
            ends_at = clock() + lasts_s
        return Answer(503) if clock() < ends_at else None

    return choose


def _is_taken(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def _told(what: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, body=json.dumps(what).encode())


def main() -> None:
    """Serve until SIGTERM, Ctrl-C or, where that is asked for, the end of standard input."""
    parser = argparse.ArgumentParser(
        prog="python -m optly_celery.testing.stand_in",
        description="A collector that stands in for Optimizely.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--strict", action=argparse.BooleanOptionalAction, default=True,
                        help="answer 400 to what the Event API does not document")  # fmt: skip
    parser.add_argument("--outage", nargs=2, type=float, metavar=("N", "SECONDS"),
                        help="answer 503 for so long from POST number N on")  # fmt: skip
    parser.add_argument("--until-eof", action="store_true",
                        help="end with standard input: with the process that holds it")  # fmt: skip
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    away = None
    if given.outage:
        away = outage(starts_at=int(given.outage[0]), lasts_s=given.outage[1])
    try:
        with StandIn(host=given.host, port=given.port, strict=given.strict, choose=away) as running:
            print(running.url, flush=True)  # noqa: T201 - where to POST
            if given.until_eof:
                sys.stdin.buffer.read()
            else:
                signal.pause()
    except OptlyCeleryError as exc:
        sys.exit(f"Error: {exc}.")


if __name__ == "__main__":
    main()
