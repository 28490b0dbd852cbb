"""Take before note loses: whatever Redis refuses, each message stays in a place that is known."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from kombu import Connection, Exchange, Queue
from redis.exceptions import ResponseError

from optly_celery.worker.pause import parking
from optly_celery.worker.receive import notes, scripts
from optly_celery.worker.receive.scripts import ASIDE

from .test_redis_transport import QUEUE, Taker, publish

LIST = ASIDE % QUEUE


@pytest.fixture
def client(broker):
    with contextlib.closing(broker.client()) as client:
        yield client
        client.acl_setuser("default", commands=["+@all"], enabled=True, nopass=True)


def look(taker, times=5):
    taker.channel._not_before_s = 0.0
    for _ in range(times):
        taker.look()


@pytest.mark.parametrize("key", ["unacked", "unacked_index"])
@pytest.mark.parametrize("kind", ["string", "list", "set"])
def test_a_key_of_another_type_costs_no_message(broker, client, key, kind, caplog):
    """Nothing is received, the worker lives and says so once; received when the key is gone."""
    publish(broker, *range(5))
    {"string": client.set, "list": client.lpush, "set": client.sadd}[kind](key, "odd")
    with Taker(broker.url, unacked_restore_interval=60) as taker:
        look(taker)
        assert (taker.messages, client.llen(QUEUE)) == ([], 5)
        assert caplog.text.count("nothing can be received from optimizely") == 1
        client.delete(key)
        taker.drain(lambda: len(taker.messages) == 5)
        assert client.hlen("unacked") == client.zcard("unacked_index") == 5


def test_a_list_of_another_type_keeps_no_other_priority_waiting(broker, client):
    """What can be received is."""
    with Taker(broker.url) as taker:
        publish(broker, *range(5))
        client.set(taker.channel._q_for_pri(QUEUE, 3), "odd")
        client.config_resetstat()
        taker.drain(lambda: len(taker.messages) == 5)
        assert client.hlen("unacked") == 5


@pytest.mark.parametrize("command", ["hsetnx", "zadd", "rpop", "zrem", "lindex", "time", "eval"])
def test_a_user_who_may_not_do_that_loses_no_message(broker, client, command, caplog):
    """Nothing of the step is left: neither a message out of the queue nor a note without one."""
    publish(broker, *range(5))
    with Taker(broker.url, acks=True, unacked_restore_interval=60) as taker:
        look(taker)
        publish(broker, *range(5, 10))
        client.acl_setuser("default", commands=[f"-{command}"], enabled=True, nopass=True)
        taken = len(taker.messages)
        look(taker)
        assert len(taker.messages) == taken
        assert client.llen(QUEUE) == 10 - taken
        assert "nothing can be received from optimizely" in caplog.text
        assert "docs/operations.md" in caplog.text
        client.acl_setuser("default", commands=[f"+{command}"], enabled=True, nopass=True)
        assert client.hlen("unacked") == client.zcard("unacked_index") == 0
        taker.channel._not_before_s = 0.0
        taker.drain(lambda: len(taker.messages) == 10)
        assert sorted(taker.bodies()) == list(range(10))


def test_a_step_that_is_asked_for_twice_takes_once(broker, client):
    """redis-py sends a command again when its answer was lost: no note may cover another."""
    publish(broker, *range(6))
    with Taker(broker.url, prefetch=2, visibility_timeout=60) as taker:
        keys = (*notes.keys_of(taker.channel), LIST, QUEUE)
        arguments = notes.arguments(QUEUE, "the same.", 3)

        items, _ = scripts.run(taker.channel, scripts.TAKE, keys, *arguments)
        with pytest.raises(ResponseError, match="given out before"):
            scripts.run(taker.channel, scripts.TAKE, keys, *arguments)

        assert [json.loads(item)["body"] for item in items] == [
            json.loads(note)[0]["body"] for _, note in sorted(client.hgetall("unacked").items())
        ]
        assert (client.llen(QUEUE), client.zcard("unacked_index")) == (3, 3)


def test_messages_with_one_tag_do_not_overwrite_each_other(broker, client):
    """A hand-written sender may give all of its messages the same one, or none."""
    made = [
        {
            "body": json.dumps(n),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {"delivery_info": {}, **tag},
        }
        for n, tag in enumerate([{"delivery_tag": "1"}] * 3 + [{"delivery_tag": 1}, {}, {}])
    ]
    client.lpush(QUEUE, *map(json.dumps, made))
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 6)
        assert client.hlen("unacked") == client.zcard("unacked_index") == 6
        taker.messages[0].ack()
        assert client.hlen("unacked") == 5
        taker.messages[1].reject(requeue=True)
        taker.drain(lambda: len(taker.messages) == 7)
        assert sorted(taker.bodies()) == [0, 1, 1, 2, 3, 4, 5]
        assert client.hlen("unacked") == 5


def test_what_is_too_large_for_a_worker_never_leaves_redis(broker, client, monkeypatch):
    """It goes to the list of what was set aside, and what is behind it is received."""
    monkeypatch.setattr("optly_celery.worker.receive.notes.MOST_BYTES", 10_000)
    client.lpush(QUEUE, b"x" * 10_001)
    publish(broker, 1, 2)
    with Taker(broker.url) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        assert client.lrange(LIST, 0, -1) == [b"x" * 10_001]
        assert client.hlen("unacked") == 2


NOTED = {
    "nan": b'[{"body": nan, "properties": {}}, "", "optimizely"]',
    "control": b'[{"body": "\x01", "properties": {}}, "", "optimizely"]',
    "no JSON": b"visitor-1",
    "empty": b"",
    "binary": b"\xff\xfe",
    "of two": b'[{}, ""]',
    "no queue": b'[{}, "", null]',
    "queue number": b'[{}, "", 7]',
    "message text": b'["m", "", "optimizely"]',
    "deep": b"[" * 50_000,
    "nested": b'[{"headers": ' + b"[" * 900 + b"]" * 900 + b'}, "", "optimizely"]',
    "large": b"[" + b"x" * 30_000 + b', "", "optimizely"]',
}


@pytest.mark.parametrize("kind", ["a dead worker's", "this worker's own"])
def test_a_note_that_cannot_be_read_keeps_no_other_from_coming_back(
    broker, client, kind, monkeypatch
):
    """At the sweep and at the end of a worker: it is set aside, and its neighbours go on."""
    monkeypatch.setattr("optly_celery.worker.receive.notes.MOST_BYTES", 20_000)
    publish(broker, *range(10))
    with Taker(broker.url, visibility_timeout=60) as holder:
        holder.drain(lambda: len(holder.messages) == 10)
        holder.channel.qos._on_collect.cancel()
        odd = {message.delivery_tag: message for message in holder.messages[:5]}
        for name, note in NOTED.items():
            tag = odd.popitem()[0] if odd else name
            client.hset("unacked", tag, note)
            client.zadd("unacked_index", {tag: 1})
        for tag in client.hkeys("unacked"):
            client.zadd("unacked_index", {tag: 1})
        if kind == "this worker's own":
            holder.channel.qos.restore_unacked()
        else:
            holder.channel.qos._delivered.clear()
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) >= 5)
        look(taker, 2)
        assert sorted(taker.bodies()) == list(range(5, 10))
        assert client.hlen("unacked") == 5
        assert client.llen(LIST) == len(NOTED)
        aside = client.lrange(LIST, 0, -1)
        assert NOTED["large"] in aside
        assert b'{"body": nan, "properties": {}}' in aside, "as it was in the queue"


def test_what_has_no_queue_to_go_back_to_stays(broker, client, caplog):
    """Another program's exchange that is gone: kombu would delete its message."""
    publish(broker, 1)
    tag = b"theirs"
    client.hset("unacked", tag, json.dumps([{"properties": {}}, "gone", "nowhere"]))
    client.zadd("unacked_index", {tag: 1})
    with Taker(broker.url, visibility_timeout=60, unacked_restore_limit=1) as taker:
        taker.drain(lambda: taker.messages)
        assert client.hexists("unacked", tag)
        assert client.zscore("unacked_index", tag) > 1, "behind the others"
        assert "an unacked message stays where it is" in caplog.text
        assert "nowhere" not in caplog.text


def test_a_message_goes_back_to_the_queue_that_it_came_from(broker, client):
    """Not to where its sender published it, nor to all queues that are bound there."""
    shop = Exchange("shop", type="topic")
    mine, theirs = (Queue(name, shop, routing_key="shop.#") for name in (QUEUE, "theirs"))
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        producer.publish(7, exchange=shop, routing_key="shop.events", declare=[mine, theirs])
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        (message,) = taker.messages
        assert message.delivery_info["routing_key"] == "shop.events"
        message.reject(requeue=True)
        taker.drain(lambda: len(taker.messages) == 2)
        client.zadd("unacked_index", {taker.messages[1].delivery_tag: 1})
        taker.channel.qos._restored_at_s = -1e9
        taker.channel.qos.restore_visible()
        taker.drain(lambda: len(taker.messages) == 3)
    assert client.llen("theirs") == 1
    assert client.llen(QUEUE) == 1


@pytest.mark.parametrize("queue", ['a "b", "c"]', "é\u2028", "back\\slash", "a b", "%s"])
def test_a_message_goes_back_whatever_its_queue_is_called(broker, client, queue):
    """The note names it, as JSON does."""
    publish(broker, 1, queue=queue)
    with Taker(broker.url, queue, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        taker.messages[0].reject(requeue=True)
        taker.drain(lambda: len(taker.messages) == 2)
    assert client.llen(queue) == 1


def test_what_was_noted_anew_meanwhile_is_somebody_elses(broker, client, monkeypatch):
    """kombu keeps a message's tag: another may have given it back and taken it again."""
    publish(broker, 1)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        tag = taker.messages[0].delivery_tag
        read, anew = notes.reading.note_of, b'[{"properties": {}}, "", "optimizely"]'

        def read_and_be_late(text):
            client.hset("unacked", tag, anew)
            return read(text)

        monkeypatch.setattr(notes.reading, "note_of", read_and_be_late)
        notes.restore(taker.channel, tag, queue=QUEUE)
        monkeypatch.undo()

        assert client.llen(QUEUE) == 0
        assert client.hget("unacked", tag) == anew


@pytest.mark.parametrize("priority", [0, "9", None, [1], {"a": 1}, float("inf"), 10**400, "x"])
def test_any_priority_comes_back(broker, client, priority):
    """kombu cannot make a list of some of them."""
    publish(broker, 1)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        (tag,) = client.hkeys("unacked")
        message, exchange, queue = json.loads(client.hget("unacked", tag))
        message["properties"]["priority"] = priority
        client.hset("unacked", tag, json.dumps([message, exchange, queue]))
        taker.messages[0].reject(requeue=True)
        taker.drain(lambda: len(taker.messages) == 2)


@pytest.mark.parametrize("off_s", [3600, -3600])
def test_a_worker_whose_clock_is_wrong_takes_no_message_from_another(
    broker, client, monkeypatch, off_s
):
    """Neither at its own receipt nor at its sweep: the clock is Redis's."""
    publish(broker, "busy")
    with Taker(broker.url, visibility_timeout=60) as holder:
        holder.drain(lambda: holder.messages)
        monkeypatch.setattr(time, "time", lambda real=time.time: real() + off_s)
        publish(broker, "next")
        with Taker(broker.url, visibility_timeout=60, unacked_restore_interval=0.01) as taker:
            taker.drain(lambda: taker.messages)
            look(taker)
            assert taker.bodies() == ["next"]
            now = client.time()[0]
            for _, at in client.zrange("unacked_index", 0, -1, withscores=True):
                assert at == pytest.approx(now, abs=30)


def test_a_full_redis_gives_back_too(broker, client):
    """Out of memory: what is given back, swept or parked makes no more of it."""
    publish(broker, *range(4))
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 4)
        client.config_set("maxmemory", 1)
        try:
            first, second, third, fourth = taker.messages
            first.reject(requeue=True)
            assert parking.park(second, QUEUE, "h")
            taker.channel.qos.restore_by_tag(third.delivery_tag)
            scripts.run(taker.channel, scripts.LATER, ("unacked_index",), fourth.delivery_tag)
            assert client.llen(QUEUE) == 2
            assert client.llen(parking.PARKED % (QUEUE, "h")) == 1
            assert client.hlen("unacked") == 1
        finally:
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize("key", [parking.PARKED % (QUEUE, "h"), parking.HOSTS % QUEUE])
def test_what_cannot_be_parked_stays_unacked(broker, client, key):
    """It is given back, then: a list of another type takes nothing, and loses nothing."""
    publish(broker, 1)
    client.set(key, "odd")
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        assert not parking.park(taker.messages[0], QUEUE, "h")
        assert client.hlen("unacked") == client.zcard("unacked_index") == 1


def test_one_hosts_odd_list_hides_no_other(broker, client):
    """Those that can be counted are."""
    client.sadd(parking.HOSTS % QUEUE, "a", "b")
    client.set(parking.PARKED % (QUEUE, "a"), "odd")
    client.lpush(parking.PARKED % (QUEUE, "b"), "{}")
    with Taker(broker.url) as taker:
        assert parking.counts(taker.channel, QUEUE) == {"b": 1}
