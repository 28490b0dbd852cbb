"""A process that gevent has patched: greenlets dispatch, another one notes how late it is woken.

    python -m tests.servers.greenlets GREENLETS EVENTS

Each greenlet dispatches so many events. Prints what became of them.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from optly_celery import dispatch, flush, stats  # noqa: E402

from ..support import US_URL, params_of  # noqa: E402

_TICK_S = 0.001


def main() -> None:
    greenlets, events = int(sys.argv[1]), int(sys.argv[2])
    late_s: list[float] = []

    def watch() -> None:
        while True:
            before = time.perf_counter()
            gevent.sleep(_TICK_S)
            late_s.append(time.perf_counter() - before - _TICK_S)

    def send(name: int) -> None:
        for number in range(events):
            dispatch(US_URL, params_of(f"v-{name}-{number}", f"u-{name}-{number}"))
            gevent.sleep(0)

    watching = gevent.spawn(watch)
    gevent.joinall([gevent.spawn(send, name) for name in range(greenlets)], raise_error=True)
    flushed = flush(30)
    watching.kill()
    late_s.sort()
    found = {"flushed": flushed, "ticks": len(late_s), "p50_s": late_s[len(late_s) // 2]}
    print(json.dumps({**stats(), **found, "longest_s": late_s[-1]}))


if __name__ == "__main__":
    main()
