"""A batch of 100 events, some of which the endpoint refuses, through a real worker."""

from __future__ import annotations

import math

import pytest

from optly_celery import dispatch, flush
from optly_celery.testing.server import Answer

from ..conftest import celery_app
from ..line import Line, batch_of, uuids_in
from ..support import US_URL, eventually

SIZE = 100


@pytest.mark.parametrize("merged", [False, True], ids=["one event", "merged"])
@pytest.mark.parametrize(
    "guilty", [(0, 50, 99), (10, 11, 12), (33, 66, 67)], ids=["far apart", "together", "mixed"]
)
def test_three_bad_events_of_a_hundred_hurt_no_other(tmp_path, guilty, merged):
    """97 are delivered once, 3 are kept, and finding them takes a bounded number of POSTs."""
    bad = {f"u-v{n}" for n in guilty}
    with Line(tmp_path) as line:
        line.collector.choose = lambda _method, _target, body: (
            Answer(400) if bad & set(uuids_in([body])) else None
        )
        line.work("-c", "4")
        events = [batch_of(f"v{n}") for n in range(SIZE)]
        if merged:
            outbox = {"optly_delivery": "outbox", "optly_outbox_dir": str(tmp_path / "outbox")}
        else:
            outbox, events = {}, [batch_of(*(f"v{n}" for n in range(SIZE)))]
        with celery_app(line.broker.url, optly_linger=5.0, **outbox):
            for params in events:
                dispatch(US_URL, params)
            assert flush(10)
        eventually(lambda: len(list(line.dead.list())) == len(bad) and line.is_empty())

        delivered = uuids_in(r.body for r in line.collector.received if r.answer.status == 204)
        assert sorted(delivered) == sorted({f"u-v{n}" for n in range(SIZE)} - bad)
        letters = list(line.dead.list())
        assert {letter.reason for letter in letters} == {"http_400"}
        kept = [line.kept(letter) for letter in letters]
        assert set(uuids_in(event.body.encode() for event in kept)) == bad
        most = 2 * len(bad) * math.log2(SIZE) + 1
        print(f"{line.collector.count} POSTs, {most:.0f} allowed")
        assert line.collector.count <= most
