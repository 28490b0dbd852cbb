"""The collector in a container, told by HTTP how to misbehave.

``PUT /script`` with ``[[status, delay_s], …]`` sets the answers to the next POSTs, ``GET /`` tells
``[[status, uuids], …]`` of all POSTs that came.
"""

from __future__ import annotations

import json
import signal
from collections import deque

from optly_celery.event.payload import uuids_of
from optly_celery.testing.server import Answer, Server, json_of

posts: list[tuple[int, list[str]]] = []
script: deque[tuple[int, float]] = deque()


def choose(method: str, _target: str, body: bytes) -> Answer:
    """Answer a POST as scripted, and everything else as an operator's wish."""
    if method == "PUT":
        script.clear()
        script.extend(json.loads(body))
        return Answer(204)
    if method != "POST":
        return Answer(200, body=json.dumps(posts).encode())
    status, delay_s = script.popleft() if script else (204, 0.0)
    posts.append((status, uuids_of(json_of(body))))
    return Answer(status, {}, delay_s)


if __name__ == "__main__":
    with Server(host="0.0.0.0", port=9000, choose=choose, keep=False):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
