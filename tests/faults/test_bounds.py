"""Retries that wait: how many a worker holds, and for how long."""

from __future__ import annotations

import pytest

from optly_celery.testing.server import Answer

from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line, uuids_in
from ..support import eventually

LIMIT = 12


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_waiting_retries_are_bounded_and_receipt_goes_on_afterwards(tmp_path, pool):
    """At the limit nothing more is received; after it, as many at a time as before."""
    first, second = [f"u-{n}" for n in range(40)], [f"v-{n}" for n in range(8)]
    config = IMPATIENT.replace('": 4', '": 60') + f"worker_eta_task_limit = {LIMIT}\n"
    settings = IMPATIENT_SETTINGS | {"retry_backoff": 1, "retry_backoff_max": 3, "pause_after": 0}
    with Line(tmp_path, config=config, **settings) as line:
        client = line.broker.client()
        most = 0

        def held():
            nonlocal most
            most = max(most, client.hlen("unacked"))

        line.collector.down = Answer(503, {"Retry-After": "3"})
        line.work("-c", "4", "--prefetch-multiplier", "1", pool=pool)
        line.dispatch(first)
        eventually(lambda: held() or most >= LIMIT)
        line.collector.down = None

        eventually(lambda: held() or line.is_empty())
        # What was acked a moment ago is still noted, on a busy machine for more than a moment.
        assert LIMIT <= most <= 2 * LIMIT < len(first)
        assert set(uuids_in(r.body for r in line.collector.received)) == set(first)

        before = line.collector.count
        line.collector.down = Answer(204, {}, 0.6)
        line.dispatch(second)
        eventually(lambda: line.is_empty() and line.collector.count - before == len(second))
        # All four slots work at the same time again.
        times = [r.at for r in line.collector.received[before:]]
        assert min(fourth - first for first, fourth in zip(times, times[3:], strict=False)) < 0.5


@pytest.mark.parametrize(
    ("option", "code"), [("13.5", 0), ("13.4", 78)], ids=["just enough", "too short"]
)
def test_a_worker_looks_at_the_visibility_timeout_that_its_connection_has(tmp_path, option, code):
    """Wherever it comes from: here, from a transport of the user's own."""
    (tmp_path / "own.py").write_text(
        "from optly_celery.consumer import redis_transport as ours\n"
        "class Channel(ours.Channel):\n"
        "    from_transport_options = ()\n"
        f"    visibility_timeout = {option}\n"
        "class Transport(ours.Transport):\n"
        "    Channel = Channel\n"
    )
    config = 'broker_transport = "own:Transport"\n'
    with Line(tmp_path, config=config, retry_backoff_max=0.4, retry_backoff=0.1) as line:
        worker = line.work("-c", "1", wait=False)
        if code:
            assert worker.process.wait(60) == code
            assert "visibility_timeout (13.4 s)" in worker.output()
        else:
            eventually(lambda: " ready." in worker.output(), what=worker.log)
            assert worker.stop() == 0
