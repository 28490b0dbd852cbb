"""What was in the queue and is no message ends among the dead letters."""

from __future__ import annotations

import base64
import contextlib
import json
from types import SimpleNamespace

import pytest
from kombu import Connection

from optly_celery.errors import DeadLetterError
from optly_celery.names import DELIVER_TASK
from optly_celery.runtime.process import runtime_of
from optly_celery.worker.loop import Loop
from optly_celery.worker.receive.scripts import ASIDE
from optly_celery.worker.set_aside import REASON, SetAside

from ..commands import invoke
from ..conftest import celery_app
from ..letters import store
from ..line import Line
from ..support import Broker, eventually

ODD = {
    "binary": b"\x80\x04visitor-1\xff",
    "not JSON": b"visitor-1 {",
    "a list": b'["visitor-1"]',
    "without properties": b'{"body": "visitor-1"}',
    "with a body in no encoding": json.dumps(
        {
            "body": "visitor-12",  # no base64: a character too many
            "content-type": "application/json",
            "headers": {"id": "visitor-1", "task": DELIVER_TASK},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": "optimizely"},
                "delivery_tag": "the-tag",
            },
        }
    ).encode(),
}
LIST = ASIDE % "optimizely"


@pytest.fixture
def line(tmp_path):
    with Line(tmp_path) as made:
        yield made


def bytes_of(letter, app):
    """What was in the queue, as a person gets it who asks for a letter's payload."""
    done = invoke("dead-letters", "show", letter.id, "--show-payload", "--json", app=app)
    whole = json.loads(done.stdout)["event"]["params"]
    return {"utf-8": str.encode, "base64": base64.b64decode}[whole["encoding"]](whole["message"])


@pytest.mark.parametrize(
    "pool",
    ["threads", *(pytest.param(p, marks=pytest.mark.slow) for p in ("prefork", "solo", "gevent"))],
)
def test_what_is_no_message_is_kept_and_its_neighbours_are_delivered(line, pool):
    """Each with all its bytes, none of which is in the log; to be purged, not to be replayed."""
    client, neighbours = line.broker.client(), [f"u-{n}" for n in range(len(ODD))]
    for odd, uuid in zip(ODD.values(), neighbours, strict=True):
        client.lpush("optimizely", odd)
        line.dispatch([uuid])
    worker = line.work("-c", "2", pool=pool)

    line.all_delivered(neighbours)
    eventually(lambda: not client.exists(LIST) and len(line.dead.ids()) == len(ODD))
    # One more, now that the worker has looked: not only when it starts.
    client.lpush("optimizely", b"visitor-1: late")
    eventually(lambda: not client.exists(LIST) and len(line.dead.ids()) == len(ODD) + 1)

    letters = list(line.dead.list())
    assert {(letter.reason, letter.attempts) for letter in letters} == {(REASON, 0)}
    assert "visitor-1" not in worker.output()
    with celery_app(line.broker.url) as app:
        kept = {bytes_of(letter, app) for letter in letters}
        assert kept == {*ODD.values(), b"visitor-1: late"}
        replayed = invoke("dead-letters", "replay", "--all", "--yes", app=app)
        assert "6 dead letters kept, being no event" in replayed.stderr
        purged = invoke("dead-letters", "purge", "--reason", REASON, "--yes", app=app)
        assert purged.stdout == "6 dead letters purged.\n"
    assert line.is_empty()


def test_what_an_older_version_has_left_in_the_list_is_kept(line):
    """By several workers at once, also by one that receives as kombu does: each once."""
    items = [f"visitor-1 {number}".encode() for number in range(300)]
    client = line.broker.client()
    client.lpush(LIST, *items)
    line.work("-c", "2", "-n", "a@%h")
    line.work("-c", "2", "-n", "b@%h", "-Q", "optimizely,other")

    eventually(lambda: not client.exists(LIST))

    assert len(line.dead.ids()) == len(items)


@pytest.mark.slow
def test_a_store_elsewhere_that_is_away_for_a_while_leaves_it_in_the_list(line, tmp_path):
    """Events are delivered meanwhile; kept when it is back."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Broker(tmp_path / "elsewhere")
    elsewhere.stop()
    try:
        client = line.broker.client()
        worker = line.work("-c", "2", dead_letter_url=elsewhere.url)
        client.lpush("optimizely", *ODD.values())
        eventually(lambda: "what is no message stays in" in worker.output())
        line.dispatch(["next"])
        line.all_delivered(["next"])
        assert client.llen(LIST) == len(ODD)

        elsewhere.start()
        eventually(lambda: not client.exists(LIST))
        assert len(store(elsewhere).ids()) == len(ODD)
    finally:
        elsewhere.stop()


class Stopped(BaseException):
    """What ends a worker in the middle of something."""


@pytest.fixture
def step(broker, monkeypatch):
    """The part of a worker whose loop this test is, with a key prefix; and its broker's client."""
    options = {"global_keyprefix": "shop:"}
    with (
        celery_app(broker.url, broker_transport_options=options) as app,
        Connection(broker.url, transport_options=options) as connection,
        contextlib.closing(broker.client()) as client,
    ):
        app.amqp.queues.select(["optimizely"])
        consumer = SimpleNamespace(
            app=app,
            hub=None,
            pool=SimpleNamespace(is_green=True),
            timer=SimpleNamespace(
                call_repeatedly=lambda *_: None, call_after=lambda _, call: call()
            ),
            task_consumer=SimpleNamespace(channel=connection.default_channel),
        )
        dead = runtime_of(app).dead_letters
        made = SetAside(consumer, Loop(consumer), dead, queue="optimizely")
        monkeypatch.setattr("optly_celery.worker.set_aside._AGAIN_S", 0.0)
        yield made, client, dead


def test_a_kill_between_keeping_and_removing_makes_one_letter(step, monkeypatch):
    """And the item is still in the list, for the next worker."""
    made, client, dead = step
    client.lpush("shop:" + LIST, b"odd")

    def keep_and_die(script, *args):
        if "LREM" in script:
            raise Stopped
        return ask(script, *args)

    ask = made._ask
    monkeypatch.setattr(made, "_ask", keep_and_die)
    with pytest.raises(Stopped):
        made.start()
    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (1, 1)

    monkeypatch.setattr(made, "_ask", ask)
    made.start()
    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (1, 0)


def test_one_that_cannot_be_kept_does_not_stop_the_others(step, monkeypatch):
    """It stays, and is tried again after them."""
    made, client, dead = step
    client.lpush("shop:" + LIST, b"bad", *(b"%d" % n for n in range(30)))
    keep, bad = dead.keep, b"bad"

    def refuse(kept):
        if kept.event.params["message"].encode() == bad:
            raise DeadLetterError("does not take it")
        return keep(kept)

    monkeypatch.setattr(dead, "keep", refuse)
    for _ in range(3):
        made.start()
    assert client.lrange("shop:" + LIST, 0, -1) == [b"bad"]
    assert len(dead.ids()) == 30

    bad = b""
    for _ in range(2):
        made.start()
    assert client.llen("shop:" + LIST) == 0
    assert len(dead.ids()) == 31


def test_a_full_store_leaves_it_in_the_list(step, caplog):
    """Said once, however often it is tried; kept when there is room again."""
    made, client, dead = step
    client.lpush("shop:" + LIST, b"odd")
    client.config_set("maxmemory", 1)
    try:
        for _ in range(4):
            made.start()
    finally:
        client.config_set("maxmemory", 0)
    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (0, 1)
    assert caplog.text.count("what is no message stays in") == 1

    for _ in range(2):
        made.start()
    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (1, 0)


def test_a_broker_that_refuses_the_look_ends_nothing(step, monkeypatch, caplog):
    """It is looked again, later."""
    made, client, dead = step
    client.set("shop:" + LIST, "of the wrong type")
    made.start()
    assert "no look at what was set aside in optimizely.unreadable" in caplog.text

    client.delete("shop:" + LIST)
    client.lpush("shop:" + LIST, b"odd")
    for _ in range(2):
        made.start()
    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (1, 0)


def test_a_queue_that_a_person_has_cancelled_is_left_alone(step):
    """Or one that this worker does not consume: it may not be meant to keep anything."""
    made, client, dead = step
    client.lpush("shop:" + LIST, b"odd")
    made._consumer.app.amqp.queues.deselect("optimizely")

    made.start()

    assert (len(dead.ids()), client.llen("shop:" + LIST)) == (0, 1)


def test_what_is_too_large_is_kept_where_it_is(step, monkeypatch):
    """Its letter says in which list; what is behind it is kept as ever."""
    made, client, dead = step
    monkeypatch.setattr("optly_celery.worker.set_aside.MOST_BYTES", 1000)
    client.rpush("shop:" + LIST, b"odd", b"x" * 1001)

    made.start()

    letters = {letter.reason: dead.show(letter.id).event.params for letter in dead.list()}
    assert letters.keys() == {"too_large", REASON}
    where = letters["too_large"]["list"]
    assert letters["too_large"]["bytes"] == 1001
    assert client.lrange("shop:" + where, 0, -1) == [b"x" * 1001]
    assert client.llen("shop:" + LIST) == 0
