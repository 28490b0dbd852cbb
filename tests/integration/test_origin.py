"""Where a message came from is known by what was consumed, with each of kombu's transports."""

from __future__ import annotations

import socket
import zlib
from contextlib import suppress

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue

from optly_celery.worker.receive import origin, unfold

from ..support import eventually

QUEUES = ("optimizely", "other")
TRANSPORTS = [None, "memory", "optly_celery.consumer.redis_transport:Transport"]


@pytest.fixture(params=TRANSPORTS, ids=["kombu's Redis", "memory", "ours"])
def connection(broker, request):
    url = "memory://" if request.param == "memory" else broker.url
    transport = None if request.param == "memory" else request.param
    with Connection(url, transport=transport) as made:
        yield made


def received(connection, until):
    """What two queues gave, each with the queue that it was said to come from."""
    channel, got = connection.default_channel, []
    origin.watch(channel, "optimizely")
    consumer = Consumer(
        channel,
        [Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        on_message=lambda message: got.append((origin.current(), message)),
        on_decode_error=lambda message, _exc: got.append((origin.current(), message)),
        auto_declare=True,
    )
    consumer.consume()

    def enough():
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.1)
        return len(got) >= until

    eventually(enough)
    for _, message in got:
        message.ack()
    return got


def publish(connection, queue, body, **options):
    declare = [Queue(queue, Exchange(queue), routing_key=queue)]
    producer = Producer(connection.channel())
    producer.publish(body, exchange=queue, routing_key=queue, declare=declare, **options)


def test_each_message_comes_from_the_queue_that_was_consumed(connection):
    """Whatever it says of itself; and nothing comes from anywhere when nothing is received."""
    for queue in QUEUES:
        publish(connection, queue, queue)

    got = received(connection, 2)

    assert sorted((queue, message.payload) for queue, message in got) == [(q, q) for q in QUEUES]
    assert origin.current() is None


def test_only_the_deliver_queue_is_decompressed_to_a_limit(connection, monkeypatch):
    """Another queue's large messages are its own affair."""
    monkeypatch.setattr(unfold, "MOST_BYTES", 10_000)
    unfold.install()
    for queue in QUEUES:
        packed = zlib.compress(b'"' + b"x" * 50_000 + b'"')
        publish(
            connection, queue, packed, content_type="application/json", content_encoding="utf-8",
            headers={"compression": "application/x-gzip"},
        )  # fmt: skip

    sizes = {queue: len(message.body) for queue, message in received(connection, 2)}

    assert sizes["other"] == 50_002
    assert sizes["optimizely"] < 1000, "as packed as it was"


def test_the_origin_is_gone_after_an_error(connection):
    """The next message must not be taken for one of that queue."""
    with pytest.raises(ZeroDivisionError), origin.receiving("optimizely"):
        raise ZeroDivisionError

    assert origin.current() is None
