"""The endpoint's own process: ``python -m optly_celery.demo.serve PORT STARTS_AT LASTS_S``.

Writes JSON lines to standard output: first its ``url``, or the ``error`` that kept it from
starting; then the ``uuids`` and the ``status`` of each request, in the order of the answers.
Ends when standard input does, so with the process that started it.
"""

from __future__ import annotations

import json
import select
import sys

from ..errors import OptlyCeleryError
from ..event.payload import uuids_of
from ..testing.schema import strict_check
from ..testing.server import Server
from .outage import Outage

_FLUSH_EVERY_S = 0.05


def serve(port: int, starts_at: int, lasts_s: float) -> None:
    """Collect until standard input ends."""
    try:
        outage = Outage(starts_at=starts_at, lasts_s=lasts_s)
        collector = Server(port=port, choose=outage, accepts=strict_check())
        collector.start()
    except OptlyCeleryError as exc:
        _say({"error": str(exc)})
        return
    _say({"url": collector.url})
    told, ended = 0, False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], _FLUSH_EVERY_S)[0])
        for request in collector.received[told:]:
            told += 1
            if request.method == "POST":
                _say({"uuids": uuids_of(request.params), "status": request.answer.status})
        sys.stdout.flush()
    collector.stop()


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what))  # noqa: T201 - the protocol with the process that started this


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    sys.stdout.flush()
