"""Nothing that arrives can hurt: whatever lies in the queue, or is noted as unacked."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.receive.scripts import ASIDE

from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line
from ..support import US_URL, eventually, params_of
from .odd import by_chance, envelope

LIST = ASIDE % "optimizely"
POOLS = [
    "threads",
    *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "solo", "gevent")),
]
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
ODD = 150


@pytest.fixture
def line(tmp_path):
    """One where nothing comes back by the visibility timeout while a test runs."""
    config = IMPATIENT.replace('": 4', '": 300')
    with Line(tmp_path, config=config, **IMPATIENT_SETTINGS) as made:
        yield made


def settled(line):
    """Whether the worker has done with all that there was, so that each has its place."""
    return line.is_empty() and not line.broker.client().exists(LIST)


def delivered(line, good):
    """How many odd ones were, each in a POST of its own; what is odd may be its uuid."""
    taken = line.taken()
    assert all(taken[uuid] == 1 for uuid in good)
    return len(line.collector.received) - len(good)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pool", POOLS)
def test_whatever_is_in_the_queue_is_kept_or_delivered_and_its_neighbours_arrive(line, pool, seed):
    """The worker that began goes on; each odd one is in one place, and in no log."""
    client, good = line.broker.client(), [f"u-{n}" for n in range(ODD)]
    worker = line.work("-c", "4", pool=pool)
    for odd, uuid in zip(by_chance(seed, ODD), good, strict=True):
        client.lpush("optimizely", odd)
        line.dispatch([uuid])

    line.all_delivered(good, timeout_s=120)
    eventually(lambda: settled(line), timeout_s=120)

    assert len(line.dead.ids()) + delivered(line, good) == ODD
    assert worker.process.poll() is None
    assert "visitor-odd" not in worker.output()
    assert "secret of" not in worker.output()


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_whatever_is_noted_as_unacked_keeps_no_other_from_coming_back(line, seed):
    """A dead worker's notes, odd ones among them: the sweep goes on past each."""
    client, good = line.broker.client(), [f"u-{n}" for n in range(ODD)]
    line.dispatch(good)
    items = client.lrange("optimizely", 0, -1)
    client.delete("optimizely")
    for n, (odd, item) in enumerate(zip(by_chance(seed, ODD), items, strict=True)):
        for tag, noted in ((f"odd-{n}", odd), (f"good-{n}", item)):
            client.hset("unacked", tag, b"[" + noted + b', "", "optimizely"]')
            client.zadd("unacked_index", {tag: n})
    worker = line.work("-c", "4")

    line.all_delivered(good, timeout_s=120)
    eventually(lambda: settled(line), timeout_s=120)

    assert len(line.dead.ids()) + delivered(line, good) == ODD
    assert worker.process.poll() is None
    assert "visitor-odd" not in worker.output()


READABLE = [[US_URL, "POST", params_of("visitor-1", "odd-1")], {}, None]
BOMB = zlib.compress(b"[" + b" " * 400_000_000 + b"]", 9)
KILLERS = {
    "a task that is an object": json.dumps(envelope(READABLE, task={"a": 1})),
    "nan in a list": json.dumps(envelope(READABLE, more=[float("nan")])).replace("NaN", "nan"),
    "a control character": json.dumps(envelope(READABLE, more="x")).replace('"x"', '"\x01"'),
    "a bomb": json.dumps(envelope(BOMB, compression="application/x-gzip")),
    "a bomb that was swept": json.dumps(envelope(BOMB, compression="gzip", **{SWEPT_HEADER: True})),
    "no tag": json.dumps(envelope(READABLE) | {"properties": {"body_encoding": "base64"}}),
    "an id that is a list": json.dumps(envelope(READABLE, id=[1])),
    "a request that has no methods": json.dumps(envelope(READABLE, get=1, update=2)),
    "many pieces": '{"properties": {}, "headers": [' + "{}," * 3_000_000 + "{}]}",
    "deep": json.dumps(envelope(b"[" * 100_000)),
    "digits": json.dumps(envelope(b"[[" + b"9" * 100_000 + b"], {}, {}]")),
}


@pytest.mark.parametrize("pool", POOLS)
def test_what_has_killed_workers_kills_none_and_its_neighbours_arrive(line, pool):
    """Beside good events, in a worker that must not use 1.5 GB."""
    client, good = line.broker.client(), [f"u-{n}" for n in range(3 * len(KILLERS))]
    client.lpush("optimizely", *KILLERS.values())
    line.dispatch(good)
    worker = line.work("-c", "4", pool=pool)

    line.all_delivered(good)
    eventually(lambda: settled(line))

    assert worker.process.poll() is None
    assert len(line.dead.ids()) + line.taken()["odd-1"] == len(KILLERS)
    most_kb = next(
        int(line.split()[1])
        for line in Path(f"/proc/{worker.process.pid}/status").read_text("utf-8").splitlines()
        if line.startswith("VmHWM")
    )
    assert most_kb < 400_000


SHOP = """
from kombu import Exchange, Queue
task_queues = [
    Queue("optimizely", Exchange("shop"), routing_key="shop.events"),
    Queue("other", Exchange("other"), routing_key="other"),
]
"""


@pytest.mark.parametrize("queues", ["optimizely", "optimizely,other"])
@pytest.mark.parametrize("info", [{"exchange": "shop", "routing_key": "shop.events"}, {}, None, 5])
def test_what_is_kept_is_decided_by_the_queue_and_not_by_the_key(tmp_path, queues, info):
    """A queue bound by another key, or a message without one: kept, and nothing of it logged."""
    with Line(tmp_path, config=IMPATIENT + SHOP, **IMPATIENT_SETTINGS) as line:
        worker = line.work("-c", "2", "-Q", queues)
        odd = envelope(b"visitor-1 {", id="odd")
        odd["properties"]["delivery_info"] = info
        line.broker.client().lpush("optimizely", json.dumps(odd))

        (letter,) = eventually(lambda: list(line.dead.list()))
        line.dispatch(["next"])
        line.all_delivered(["next"])

        assert letter.reason in ("undecodable", "not_a_message")
        assert "visitor-1" not in worker.output()
        assert worker.process.poll() is None


def test_what_is_in_another_queue_is_celerys(tmp_path):
    """Whatever a message says of where it goes: nothing of another queue is taken away from it."""
    with Line(tmp_path, config=IMPATIENT + SHOP, **IMPATIENT_SETTINGS) as line:
        worker = line.work("-c", "2", "-Q", "optimizely,other")
        line.broker.client().lpush("other", json.dumps(envelope(b"theirs {", id="odd")))

        eventually(lambda: "theirs" in worker.output(), what="Celery has logged it")

        assert line.dead.ids() == []


def test_the_worker_publishes_nothing_for_a_stranger(line):
    """Callbacks, chains and chords of a message are left out: it is delivered, and that is all."""
    follow = {"task": "stranger", "args": [], "kwargs": {}, "options": {"queue": "theirs"}}
    embeds = [
        {"callbacks": [follow]}, {"chain": [follow]}, {"errbacks": [follow]},
        {"chord": follow | {"options": {"queue": "theirs", "task_id": "x"}}},
    ]  # fmt: skip
    client = line.broker.client()
    for n, embed in enumerate(embeds):
        event = [US_URL, "POST", params_of("v", f"odd-{n}")]
        client.lpush("optimizely", json.dumps(envelope([event, {}, embed], id=f"t-{n}")))
        client.lpush("optimizely", json.dumps(envelope([event, {}, {}], id=f"h-{n}", **embed)))
    line.work("-c", "2")

    eventually(lambda: len(line.collector.received) == 2 * len(embeds) and line.is_empty())

    assert client.llen("theirs") == 0
    assert line.dead.ids() == []
