"""Parking's scripts: whatever happens, a message is in the queue, unacked or parked, and in one."""

from __future__ import annotations

import contextlib
import json

import pytest
from kombu import Connection, Exchange, Producer, Queue
from redis.exceptions import ResponseError

from optly_celery.worker.pause.parking import (
    HOSTS,
    PARKED,
    can_park,
    counts,
    next_of,
    park,
    take,
    unpark,
)
from optly_celery.worker.receive.scripts import ASIDE

from ..support import Broker

QUEUE, HOST = "optimizely", "logx.optimizely.com:8080"
STOCK, OURS = None, "optly_celery.consumer.redis_transport:Transport"


def channel_of(broker, transport=OURS, **options):
    connection = Connection(
        broker.url, transport=transport, transport_options={"visibility_timeout": 60, **options}
    )
    return connection, connection.channel()


@pytest.fixture(params=[OURS, STOCK], ids=["ours", "stock"])
def channel(broker, request):
    """Of both transports: a worker of several queues has kombu's."""
    connection, made = channel_of(broker, request.param)
    yield made
    connection.close()


@pytest.fixture
def client(broker):
    with contextlib.closing(broker.client()) as made:
        yield made


def publish(broker, *bodies, prefix="", **options):
    declare = [Queue(QUEUE, Exchange(QUEUE), QUEUE)]
    with Connection(broker.url, transport_options={"global_keyprefix": prefix}) as connection:
        for body in bodies:
            Producer(connection).publish(
                body, exchange=QUEUE, routing_key=QUEUE, declare=declare, **options
            )


def where(client, prefix=""):
    """How many messages are in the queue, unacked (noted, and in the index) and parked."""
    return (
        client.llen(prefix + QUEUE),
        client.hlen(prefix + "unacked"),
        client.zcard(prefix + "unacked_index"),
        client.llen(prefix + PARKED % (QUEUE, HOST)),
    )


def taken(channel, source=QUEUE, limit=99):
    return take(channel, QUEUE, source, limit)


def test_what_is_taken_is_unacked_until_it_is_acked(broker, client, channel):
    """Oldest first, as many as asked for, and as kombu itself receives it."""
    publish(broker, *range(4))

    messages = taken(channel, limit=3)

    assert [message.payload for message in messages] == [0, 1, 2]
    assert where(client) == (1, 3, 3, 0)
    for message in messages:
        message.ack()
    getattr(channel.qos, "settle", bool)()
    assert where(client) == (1, 0, 0, 0)


def test_what_is_parked_is_in_its_hosts_list_alone(broker, client, channel):
    """Out of the queue and no more unacked; the set knows its host."""
    publish(broker, *range(3))

    assert all(park(message, QUEUE, HOST) for message in taken(channel))

    assert where(client) == (0, 0, 0, 3)
    assert client.smembers(HOSTS % QUEUE) == {HOST.encode()}
    assert counts(channel, QUEUE) == {HOST: 3}


def test_kombu_forgets_what_was_parked(broker, client, channel):
    """Its prefetch has room again, and neither its ack nor its close touches the message."""
    publish(broker, 1)
    channel.basic_qos(0, 1, False)
    (message,) = taken(channel)
    assert not channel.qos.can_consume()
    park(message, QUEUE, HOST)

    assert message.acknowledged
    assert channel.qos.can_consume()
    channel.close()

    assert where(client) == (0, 0, 0, 1)


def test_what_is_parked_is_what_was_received(broker, client, channel):
    """Byte by byte as far as JSON goes, with headers and properties."""
    publish(broker, {"text": "é\u2028", "n": 1.0, "big": 2**70}, headers={"x": "y"})
    before = json.loads(client.lindex(QUEUE, 0))
    (message,) = taken(channel)

    park(message, QUEUE, HOST)

    assert json.loads(client.lindex(PARKED % (QUEUE, HOST), 0)) == before


def test_what_is_somebody_elses_by_now_is_not_parked(broker, client, channel):
    """Given back for its age meanwhile: parked as well, it would be there twice."""
    publish(broker, 1)
    (message,) = taken(channel)
    client.delete("unacked", "unacked_index")

    park(message, QUEUE, HOST)

    assert where(client) == (0, 0, 0, 0)
    assert counts(channel, QUEUE) == {}


def test_parked_messages_are_taken_oldest_first(broker, client, channel):
    """And are unacked then, as if they had come from the queue."""
    publish(broker, *range(3))
    for message in taken(channel):
        park(message, QUEUE, HOST)

    messages = taken(channel, PARKED % (QUEUE, HOST), limit=2)

    assert [message.payload for message in messages] == [0, 1]
    assert where(client) == (0, 2, 2, 1)


def test_parked_messages_that_go_back_are_the_next_in_the_queue_in_order(broker, client, channel):
    """As many as asked for; they have waited longest among themselves."""
    publish(broker, *range(4))
    for message in taken(channel):
        park(message, QUEUE, HOST)

    assert unpark(channel, QUEUE, HOST, 3) == 3
    assert where(client) == (3, 0, 0, 1)
    assert unpark(channel, QUEUE, HOST, 3) == 1
    assert unpark(channel, QUEUE, HOST, 3) == 0

    assert [message.payload for message in taken(channel)] == [0, 1, 2, 3]


def test_counts_forget_hosts_with_nothing_parked(broker, client, channel):
    """The set would grow with every host that ever was."""
    publish(broker, 1)
    (message,) = taken(channel)
    park(message, QUEUE, HOST)
    client.sadd(HOSTS % QUEUE, "empty")

    assert counts(channel, QUEUE) == {HOST: 1}

    assert client.smembers(HOSTS % QUEUE) == {HOST.encode()}


def test_a_parked_message_given_back_after_it_was_taken_is_in_its_queue(broker, client, channel):
    """Its queue is what it says itself, wherever it was taken from."""
    publish(broker, 1)
    (message,) = taken(channel)
    park(message, QUEUE, HOST)
    (message,) = taken(channel, PARKED % (QUEUE, HOST))

    message.reject(requeue=True)

    assert where(client) == (1, 0, 0, 0)


def test_a_worker_that_dies_with_a_parked_message_loses_nothing(broker, client):
    """What was taken from the list comes back by kombu's restore, as any other."""
    publish(broker, 1)
    connection, channel = channel_of(broker)
    (message,) = taken(channel)
    park(message, QUEUE, HOST)
    taken(channel, PARKED % (QUEUE, HOST))

    connection.close()

    assert where(client) == (1, 0, 0, 0)


def test_what_is_no_message_is_set_aside_and_the_rest_taken(broker, client, channel):
    """It cannot be noted as unacked, so it must not be taken."""
    client.lpush(QUEUE, "no message")
    publish(broker, 1)

    assert [message.payload for message in taken(channel)] == [1]

    assert client.lrange(ASIDE % QUEUE, 0, -1) == [b"no message"]


def test_every_priority_of_the_queue_is_taken(broker, client, channel):
    """kombu keeps each in a list of its own; the most urgent is the first list."""
    publish(broker, "low", priority=9)
    publish(broker, "high", priority=0)

    assert [message.payload for message in taken(channel)] == ["high", "low"]


def test_the_next_one_is_of_the_first_source_that_has_any(broker, channel):
    """What is parked is older than what is in the queue; nothing is None."""
    publish(broker, "parked")
    (message,) = taken(channel)
    park(message, QUEUE, HOST)
    publish(broker, "queued")
    sources = [PARKED % (QUEUE, HOST), QUEUE]

    found = [next_of(channel, QUEUE, sources) for _ in range(3)]

    assert [None if one is None else one.payload for one in found] == ["parked", "queued", None]


def test_a_key_prefix_is_before_every_key(broker, client):
    """Two installations in one Redis know nothing of each other."""
    publish(broker, 1, 2, prefix="mine:")
    connection, channel = channel_of(broker, global_keyprefix="mine:")
    with contextlib.closing(connection):
        for message in taken(channel):
            park(message, QUEUE, HOST)
        assert where(client, "mine:") == (0, 0, 0, 2)
        assert counts(channel, QUEUE) == {HOST: 2}
        assert unpark(channel, QUEUE, HOST, 1) == 1
        taken(channel, PARKED % (QUEUE, HOST))

    assert all(key.startswith((b"mine:", b"_kombu")) for key in client.scan_iter())


def test_where_no_acks_are_kept_nothing_can_be_parked(broker, client):
    """Without them kombu has no note of the message; it stays where it was."""
    connection, channel = channel_of(broker, STOCK, ack_emulation=False)
    with contextlib.closing(connection):
        assert not can_park(channel)


def test_another_broker_cannot_park_and_is_asked_its_own_way():
    """kombu in memory stands for those that are no Redis."""
    with Connection("memory://") as connection:
        channel = connection.channel()
        queue = Queue(QUEUE, Exchange(QUEUE), QUEUE)
        Producer(connection).publish(7, exchange=QUEUE, routing_key=QUEUE, declare=[queue])

        message = next_of(channel, QUEUE, [QUEUE])

        assert message.payload == 7
        assert not park(message, QUEUE, HOST)
        assert not message.acknowledged
        message.reject(requeue=True)
        assert next_of(channel, QUEUE, [QUEUE]).payload == 7
        assert next_of(channel, QUEUE, [QUEUE]) is None


def test_a_redis_that_is_full_parks_and_hands_out_and_moves_nothing_halfway(own_broker: Broker):
    """Each script takes away before it puts, or is refused before its first change."""
    publish(own_broker, 1)
    connection, channel = channel_of(own_broker)
    with contextlib.closing(own_broker.client()) as client, contextlib.closing(connection):
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        (message,) = taken(channel)
        assert where(client) == (0, 1, 1, 0)

        assert park(message, QUEUE, HOST)

        assert where(client) == (0, 0, 0, 1)
        with pytest.raises(ResponseError):
            unpark(channel, QUEUE, HOST, 1)
        assert where(client) == (0, 0, 0, 1)
        assert counts(channel, QUEUE) == {HOST: 1}
        assert [one.payload for one in taken(channel, PARKED % (QUEUE, HOST))] == [1]
        client.config_set("maxmemory", 0)


def test_a_redis_that_is_gone_is_no_error(own_broker: Broker):
    """The message cannot be parked, and whoever asked is told so."""
    publish(own_broker, 1)
    connection, channel = channel_of(own_broker, STOCK)
    (message,) = taken(channel)
    own_broker.kill()

    assert not park(message, QUEUE, HOST)
    own_broker.start()
    connection.close()
