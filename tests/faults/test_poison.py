"""Messages that cannot be read, and events that kill whoever delivers them."""

from __future__ import annotations

import json

import pytest

from optly_celery.testing.server import Answer

from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line, uuids_in
from ..support import US_URL, eventually, params_of
from .odd import envelope

POOLS = ["threads", "prefork", "solo", "gevent"]

DEADLY = """
import os as _os, signal as _signal
from celery.signals import task_prerun as _prerun

@_prerun.connect(weak=False)
def _die(args=(), **_):
    if "deadly" in str(args):
        _os.kill(_os.getpid(), _signal.SIGKILL)
"""
"""Configuration of a worker whose process dies of events that say so."""


@pytest.fixture
def patient_line(tmp_path):
    """One where nothing comes back by the visibility timeout, however slow the machine."""
    config = IMPATIENT.replace('": 4', '": 300') + DEADLY
    with Line(tmp_path, config=config, **IMPATIENT_SETTINGS) as made:
        yield made


@pytest.fixture
def line(tmp_path):
    with Line(tmp_path, config=IMPATIENT + DEADLY, **IMPATIENT_SETTINGS) as made:
        yield made


def test_an_event_that_kills_a_child_three_times_is_kept(patient_line):
    """A child of a prefork pool dies with it each time; the others' events are delivered."""
    line, innocent = patient_line, [f"u-{n}" for n in range(6)]
    worker = line.work("-c", "1", pool="prefork")
    line.dispatch(["deadly", *innocent])

    eventually(line.is_empty)

    (letter,) = line.dead.list()
    assert (letter.reason, letter.attempts) == ("killed_worker", 1)
    assert line.kept(letter).params == params_of(uuid="deadly"), "to be replayed"
    assert sorted(uuids_in(r.body for r in line.collector.received)) == innocent
    assert worker.output().count("exited prematurely") >= 3
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    "pool", [pytest.param(p, marks=pytest.mark.slow) for p in ("threads", "solo", "gevent")]
)
def test_an_event_that_kills_its_worker_three_times_is_kept(line, pool):
    """The whole worker dies with all it holds; only the guilty event is kept, the others go on."""
    innocent = [f"u-{n}" for n in range(20)]
    # They are under way whenever it strikes, so none has an end before the worker has its own.
    line.collector.down = Answer(204, {}, 0.3)
    line.dispatch([*innocent, "deadly"])
    deaths = 0
    for _ in range(5):
        worker = line.work("-c", "4", pool=pool)
        eventually(lambda w=worker: w.process.poll() is not None or line.is_empty())
        if worker.process.poll() is None:
            break
        deaths += 1

    assert deaths == 3
    (letter,) = line.dead.list()
    assert (letter.reason, letter.status) == ("killed_worker", None)
    assert line.kept(letter).params == params_of(uuid="deadly")
    assert set(uuids_in(r.body for r in line.collector.received)) == set(innocent)


def test_a_killed_workers_events_are_not_suspected_for_good(line):
    """What came back and was delivered leaves no note behind."""
    worker = line.work("-c", "4")
    line.collector.down = Answer(204, {}, 3)
    line.dispatch(["u-1", "u-2"])
    eventually(lambda: len(line.collector.received) == 2)
    worker.kill()
    line.collector.down = None
    line.work("-c", "4")

    eventually(line.is_empty)

    assert len(line.posts("u-1")) == len(line.posts("u-2")) == 2
    assert not list(line.dead.list())
    eventually(lambda: not line.broker.client().keys("*strikes*"))


NO_BODY = object()
READABLE = [[US_URL, "POST", params_of()], {}, None]


def _message(body, **headers):
    """A message as a program of any language may put it into the queue."""
    if body is NO_BODY:
        whole = envelope(None, **headers)
        del whole["body"]
        return whole
    return envelope(body.encode() if isinstance(body, str) else body, **headers)


UNREADABLE = {
    "no body": ({"body": NO_BODY}, "undecodable"),
    "no JSON": ({"body": "visitor-1 {"}, "undecodable"),
    "no text": ({"body": b"\xff\xfevisitor-1"}, "undecodable"),
    "wrong shape": ({"body": {"visitor_id": "visitor-1"}}, "undecodable"),
    "two of three": ({"body": [["visitor-1"], {}]}, "undecodable"),
    "keywords no object": ({"body": [["visitor-1"], ["x"], None]}, "undecodable"),
    "options no object": ({"body": [["visitor-1"], {}, "x"]}, "undecodable"),
    "time limit": ({"body": READABLE, "timelimit": "soon"}, "undecodable"),
    "retries": ({"body": READABLE, "retries": "many"}, "undecodable"),
    "id": ({"body": READABLE, "id": None}, "undecodable"),
    "eta": ({"body": READABLE, "eta": "tomorrow"}, "undecodable"),
    "eta beyond time": ({"body": READABLE, "eta": "9999-12-31T23:59:59-23:59"}, "undecodable"),
    "stamps": ({"body": READABLE, "stamped_headers": 5}, "undecodable"),
    "retries by limits": (
        {"body": READABLE, "timelimit": ["a", "b"], "retries": "c"},
        "undecodable",
    ),
    "compression": ({"body": READABLE, "compression": "application/x-gzip"}, "undecodable"),
    "unknown task": ({"body": READABLE, "task": "optly_celery.delivr"}, "unknown_task"),
    "keyword twice": ({"body": [[US_URL], {"url": "visitor-1"}, None]}, "unexpected_error"),
}


@pytest.mark.parametrize(
    "pool", [POOLS[0], *(pytest.param(p, marks=pytest.mark.slow) for p in POOLS[1:])]
)
def test_a_message_that_cannot_be_read_is_kept_as_it_is(patient_line, pool):
    """Whatever is wrong with it; nothing of it is logged, and the worker goes on."""
    line = patient_line
    worker = line.work("-c", "1", pool=pool)
    client = line.broker.client()
    for name, (parts, reason) in UNREADABLE.items():
        message = _message(**parts)
        client.lpush("optimizely", json.dumps(message))
        eventually(lambda: list(line.dead.list()) and line.is_empty(), what=name)
        (letter,) = line.dead.list()
        assert letter.reason == reason, name
        kept = line.kept(letter).params
        for header, value in message["headers"].items():
            assert kept["message"]["headers"][header] == value, name
        line.dead.remove([letter.id])
        client.delete(*client.keys("*strikes*") or ["none"])
    assert "visitor-1" not in worker.output()
    line.dispatch(["next"])
    eventually(lambda: line.posts("next"))
    assert worker.process.poll() is None
