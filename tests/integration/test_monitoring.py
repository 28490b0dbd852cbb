"""What monitors, such as Flower, hear of a worker's tasks."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from optly_celery.testing.server import Answer

from ..line import Line, Watch
from ..support import eventually

COUNT = 300
EACH = {"task-received": COUNT, "task-started": COUNT, "task-succeeded": COUNT}
POOLS = ["threads", "prefork", "solo", "gevent"]


def heard(watch):
    found = Counter(event["type"] for event in watch.heard if event["type"].startswith("task-"))
    return dict(found)


def publications(line):
    """How many messages were published to listeners since the statistics were reset."""
    return line.broker.client().info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]


@pytest.mark.parametrize("pool", POOLS)
def test_monitors_hear_everything_in_a_few_messages_also_from_a_worker_that_ends(tmp_path, pool):
    """Told to end in the middle of a POST, it tells of that one, too."""
    uuids = [f"u-{n}" for n in range(COUNT - 1)]
    with Line(tmp_path) as line, line.watch as watch:
        line.collector.choose = lambda _method, _target, body: (
            Answer(204, {}, 1.5) if b"slow" in body else None
        )
        worker = line.work("-c", "8", pool=pool)
        line.broker.client().config_resetstat()
        began = time.monotonic()
        line.dispatch(uuids)
        line.all_delivered(uuids)
        eventually(lambda: heard(watch).get("task-succeeded") == COUNT - 1)
        most = 10 * (time.monotonic() - began) + 10  # ten a second, heartbeats
        assert publications(line) <= most
        line.dispatch(["slow"])
        eventually(lambda: line.posts("slow"))

        assert worker.stop() == 0

        eventually(lambda: heard(watch) == EACH, what=lambda: heard(watch))


def test_monitors_hear_of_a_worker_whose_broker_was_away(tmp_path):
    """The worker gathers for its new connection, and not for the lost one."""
    with Line(tmp_path) as line:
        line.work("-c", "4")
        line.dispatch(["before"])
        line.all_delivered(["before"])
        line.broker.kill()
        line.broker.start()

        uuids = [f"u-{n}" for n in range(COUNT)]
        with Watch(line.broker.url) as watch:
            line.dispatch(uuids)
            line.all_delivered(uuids)
            # The news of the first one may be among it: it was kept if it was not sent.
            eventually(
                lambda: (
                    all(COUNT <= n <= COUNT + 1 for n in heard(watch).values())
                    and heard(watch).keys() == EACH.keys()
                ),
                what=lambda: heard(watch),
            )
