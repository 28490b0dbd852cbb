"""An app for fault tests: dispatches events as it is told, then ends as it is told.

    python -m tests.faults.outbox_app PREFIX EVENTS HOW

Prints a line when it begins and one with what became of the events. HOW is one word of: exit,
kill (SIGKILL itself after the last event), hold (wait for a line on standard input, then kill),
close (wait for a line, then close), fork (dispatch, fork, dispatch in parent and child).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from optly_celery import close, dispatch, stats

from ..support import US_URL, params_of


def send(prefix: str, count: int) -> None:
    longest_s = 0.0
    for number in range(count):
        started = time.perf_counter()
        dispatch(US_URL, params_of(f"{prefix}-{number}", f"{prefix}-{number}"))
        longest_s = max(longest_s, time.perf_counter() - started)
    # In one piece, since a forked child writes to the same pipe.
    os.write(1, json.dumps({**stats(), "longest_s": longest_s}).encode() + b"\n")


def main() -> None:
    prefix, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    print("begin", flush=True)
    if how == "fork":
        send(prefix, count)
        child = os.fork()
        send(f"{prefix}-{'parent' if child else 'child'}", count)
        if child:
            os.waitpid(child, 0)
        return
    send(prefix, count)
    if how in ("hold", "close"):
        sys.stdin.readline()
    if how in ("kill", "hold"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "close":
        print(json.dumps({"closed": close(10), **stats()}), flush=True)


if __name__ == "__main__":
    main()
