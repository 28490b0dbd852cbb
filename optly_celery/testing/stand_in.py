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
import json
import re
import signal
import sys
from typing import Any

from ..errors import OptlyCeleryError
from ..event.payload import uuids_of
from .outage import Outage
from .results import Results
from .schema import strict_check
from .server import Answer, Choice, Server, json_of

_POSTS = re.compile(r"/posts(?:\?from=(\d+))?")


class StandIn(Server):
    """The program's server; keeps of each POST no more than its status and uuids.

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
        self._results = Results()

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        if method == "PUT":
            return self._obey(target, body)
        if method != "POST":
            asked = _POSTS.fullmatch(target)
            return _told(self._posts[int(asked[1] or 0) :] if asked else self._results.as_dict())
        answer = super().answer(method, target, body)
        params = json_of(body)
        self._posts.append((answer.status, uuids_of(params)))
        if answer.status == 400:
            self._results.refuse()
        elif 200 <= (answer.status or 0) < 300:
            self._results.take(params)
        return answer

    def _obey(self, target: str, body: bytes) -> Answer:
        try:
            answers = [Answer(status, delay_s=float(delay_s)) for status, delay_s in json_of(body)]
        except (TypeError, ValueError):
            return Answer(400)
        if target != "/script":
            return Answer(404)
        self.script(*answers, anew=True)
        return Answer(204)


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
        starts_at, lasts_s = given.outage
        away = Outage(starts_at=int(starts_at), lasts_s=lasts_s)
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
