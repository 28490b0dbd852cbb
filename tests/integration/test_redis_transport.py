"""Messages are received in one step, and otherwise as kombu does it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import time

import kombu
import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.exceptions import ResponseError

from optly_celery.names import SWEPT_HEADER
from optly_celery.worker.receive.scripts import ASIDE
from optly_celery.worker.receive.transport import Channel, Transport, choose

from ..support import eventually

TRANSPORT = "optly_celery.consumer.redis_transport:Transport"
QUEUE = "optimizely"
OPTIONS = {"visibility_timeout": 1, "unacked_restore_interval": 0.2, "unacked_restore_throttle": 1}


@pytest.fixture
def client(broker):
    with contextlib.closing(broker.client()) as client:
        yield client


class Taker:
    """Consumes queues without an event loop, and keeps what it was given."""

    def __init__(
        self, url, *names, prefetch=10, transport=TRANSPORT, no_ack=False, acks=False, **options
    ):
        self._acks = acks
        self.connection = Connection(
            url, transport=transport, transport_options={**OPTIONS, **options}
        )
        self.channel = self.connection.channel()
        self.messages = []
        queues = [Queue(name, Exchange(name), routing_key=name) for name in names or [QUEUE]]
        self.consumer = Consumer(self.channel, queues, on_message=self._take, no_ack=no_ack)
        self.channel.basic_qos(0, prefetch, False)
        self.consumer.consume()

    def _take(self, message):
        self.messages.append(message)
        if self._acks:
            message.ack()

    def bodies(self):
        return [message.payload for message in self.messages]

    def drain(self, until, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, self.bodies()
            with contextlib.suppress(socket.timeout):
                self.connection.drain_events(timeout=0.1)

    def look(self):
        """One wait of a tenth of a second."""
        with contextlib.suppress(socket.timeout):
            self.connection.drain_events(timeout=0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def publish(broker, *bodies, queue=QUEUE, **options):
    """Through kombu's own transport, as any producer."""
    declare = [Queue(queue, Exchange(queue), queue)]
    with Connection(broker.url) as connection:
        producer = Producer(connection)
        for body in bodies:
            producer.publish(body, exchange=queue, routing_key=queue, declare=declare, **options)


def test_what_is_received_is_noted_as_unacked_until_it_is_acked(broker, client):
    """At each moment a message is in the queue or noted, and after its ack in neither."""
    publish(broker, *range(5))
    with Taker(broker.url) as taker:
        taker.drain(lambda: len(taker.messages) == 5)

        assert taker.bodies() == list(range(5))
        assert client.llen(QUEUE) == 0
        assert client.hlen("unacked") == client.zcard("unacked_index") == 5
        for message in taker.messages:
            message.ack()
        assert client.hlen("unacked") == client.zcard("unacked_index") == 0


def test_a_note_is_what_kombu_would_write(broker, client):
    """So that any kombu can give the message back."""
    notes = []
    for transport in (None, TRANSPORT):
        client.flushall()
        publish(broker, {"n": 1.0, "big": 2**70, "text": "é\u2028"})
        with Taker(broker.url, transport=transport, visibility_timeout=60) as taker:
            taker.drain(lambda taker=taker: taker.messages)
            ((tag, note),) = client.hgetall("unacked").items()
            message, exchange, routing_key = json.loads(note)
            assert taker.messages[0].delivery_tag == tag.decode()
            notes.append(message["properties"].pop("delivery_tag") and message)
            assert [queue for queue in (exchange, routing_key) if queue][-1] == QUEUE
            assert client.zscore("unacked_index", tag) == pytest.approx(time.time(), abs=30)
            taker.messages[0].ack()
    assert notes[0] == notes[1]


@pytest.mark.parametrize("moment", ["send_command", "parse_response", "_hand_over"])
def test_a_kill_at_any_moment_of_the_receipt_loses_nothing(broker, client, moment):
    """SIGKILL when it is asked for, answered, or read; then another takes all there is."""
    publish(broker, *range(20))
    spawn = multiprocessing.get_context("spawn")
    victim = spawn.Process(target=_receive_and_die, args=(broker.url, moment))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    eventually(lambda: client.hlen("unacked") > 0, what="the script has run")
    assert client.llen(QUEUE) + client.hlen("unacked") == 20

    with Taker(broker.url, acks=True) as taker:
        taker.drain(lambda: len(taker.messages) >= 20)
        assert sorted(taker.bodies()) == list(range(20))
    assert client.hlen("unacked") == client.llen(QUEUE) == 0


def _receive_and_die(url, moment):
    def die(*_args, **_options):
        os.kill(os.getpid(), signal.SIGKILL)

    taker = Taker(url, prefetch=5)
    if moment == "_hand_over":
        taker.channel._hand_over = die
    elif moment == "parse_response":
        taker.channel.client.parse_response = lambda connection, *_: (
            connection.can_read(10) and die()
        )
    else:
        pool = taker.channel.client.connection_pool
        taker.channel.client.connection = pool.get_connection("_")
        send = taker.channel.client.connection.send_command
        taker.channel.client.connection.send_command = lambda *args: (send(*args), die())
    while True:
        taker.look()


def test_kombu_alone_loses_a_message_there(broker, client):
    """What this module is for. When this fails, kombu has closed the window: delete the module."""
    publish(broker, 1)
    with Taker(broker.url, transport=None) as taker:
        seen = []
        taker.channel.qos.append = lambda *_: seen.append(
            client.llen(QUEUE) + client.hlen("unacked")
        )
        taker.drain(lambda: seen)
    assert seen == [0], "nowhere in Redis"


def test_a_full_redis_hands_out_and_forgets_nothing(broker, client):
    """Out of memory: what waits is received and acked all the same, which makes room."""
    publish(broker, *range(30))
    with Taker(broker.url, prefetch=7, acks=True) as taker:
        client.config_set("maxmemory", 1)
        try:
            taker.drain(lambda: len(taker.messages) == 30)
            assert taker.bodies() == list(range(30))
            assert client.llen(QUEUE) + client.hlen("unacked") == 0
        finally:
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize("trouble", ["full", "too old to know BLMOVE"])
def test_an_idle_worker_waits_without_redis_help(broker, client, trouble):
    """Where Redis refuses the blocking wait, it is asked again and again, but not in a hurry."""
    with Taker(broker.url, acks=True, unacked_restore_interval=60) as taker:
        if trouble == "full":
            client.config_set("maxmemory", 1)
        else:
            client.acl_setuser("default", commands=["-blmove"], enabled=True, nopass=True)
            reply = taker.channel.client.parse_response

            def parse_response(connection, command, **options):
                try:
                    return reply(connection, command, **options)
                except stock.redis.exceptions.NoPermissionError:
                    raise ResponseError("unknown command 'BLMOVE'") from None

            taker.channel.client.parse_response = parse_response
        try:
            client.config_resetstat()
            for _ in range(15):
                taker.look()
            assert client.info("commandstats")["cmdstat_eval"]["calls"] < 10
        finally:
            client.config_set("maxmemory", 0)
            client.acl_setuser("default", commands=["+blmove"], enabled=True, nopass=True)
        publish(broker, 1)
        taker.drain(lambda: taker.messages)


def test_no_more_is_received_than_may_be_held(broker, client):
    """Taking many at once does not overstep the prefetch limit: others may have the rest."""
    publish(broker, *range(10))
    with Taker(broker.url, prefetch=3) as taker:
        taker.drain(lambda: len(taker.messages) == 3)
        taker.look()
        assert len(taker.messages) == client.hlen("unacked") == 3
        taker.messages[0].ack()
        taker.drain(lambda: len(taker.messages) == 4)
        assert client.llen(QUEUE) == 6


@pytest.mark.parametrize("prefetch", [0, 1000])
def test_one_step_takes_a_hundred_at_most(broker, client, prefetch):
    """Redis does nothing else meanwhile, and a worker without a limit would take all there is."""
    publish(broker, *range(250))
    with Taker(broker.url, prefetch=prefetch) as taker:
        taker.drain(lambda: taker.messages)
        assert len(taker.messages) == 100
        taker.drain(lambda: len(taker.messages) == 250)


def test_a_full_worker_takes_again_once_an_eighth_is_free(broker, client):
    """One step for each message would cost what the one step has saved."""
    publish(broker, *range(20))
    with Taker(broker.url, prefetch=16) as taker:
        taker.drain(lambda: len(taker.messages) == 16)
        taker.messages[0].ack()
        taker.look()
        assert len(taker.messages) == 16
        taker.messages[1].ack()
        taker.drain(lambda: len(taker.messages) == 18)


def test_a_message_that_comes_later_is_received(broker, client):
    """The wait of an idle worker ends at once, and again for the next."""
    with Taker(broker.url) as taker:
        for n in range(3):
            taker.look()
            publish(broker, n)
            taker.drain(lambda n=n: len(taker.messages) == n + 1)
        assert client.llen(QUEUE) == 0


def test_messages_of_every_priority_are_received(broker, client):
    """A producer's priority never leaves a message lying, nor one that comes to an idle worker."""
    for priority in (9, 0, 3, 6):
        publish(broker, priority, priority=priority)
    with Taker(broker.url, acks=True) as taker:
        taker.drain(lambda: len(taker.messages) == 4)
        assert sorted(taker.bodies()) == [0, 3, 6, 9]
        publish(broker, 7, priority=7)
        taker.drain(lambda: len(taker.messages) == 5)


def test_several_queues_are_received_as_kombu_does(broker, client):
    """The one step is for one queue; with several, nothing is left behind or unacked."""
    publish(broker, "event")
    publish(broker, "mail", queue="mail")
    with Taker(broker.url, QUEUE, "mail") as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        assert sorted(taker.bodies()) == ["event", "mail"]
        assert client.hlen("unacked") == 2
        for message in taker.messages:
            message.ack()
        assert client.hlen("unacked") == 0


@pytest.mark.parametrize("odd", [b"{", b"nan", b'{"properties": {}, "a": nan}', b"", b"\xff"])
def test_one_of_several_queues_may_hold_anything(broker, client, odd):
    """Whichever it is: set aside beside it, and the others are received."""
    for queue in (QUEUE, "mail"):
        client.lpush(queue, odd)
        publish(broker, queue, queue=queue)
    with Taker(broker.url, QUEUE, "mail", acks=True) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        taker.drain(lambda: client.llen(ASIDE % "mail") == client.llen(ASIDE % QUEUE) == 1)
        assert client.hlen("unacked") == client.zcard("unacked_index") == 0


def test_what_several_queues_have_given_goes_back_to_each(broker, client):
    """Also what a dead worker of several queues held."""
    publish(broker, "event")
    publish(broker, "mail", queue="mail")
    with Taker(broker.url, QUEUE, "mail", visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        client.zadd("unacked_index", {taker.messages[0].delivery_tag: 1})
        taker.channel.qos._restored_at_s = -1e9
        taker.channel.qos.restore_visible()
        taker.drain(lambda: len(taker.messages) == 3)
    assert client.llen(QUEUE) == client.llen("mail") == 1


def test_a_full_redis_takes_the_note_of_what_was_popped(broker, client):
    """A worker of several queues loses nothing there either."""
    publish(broker, *range(10))
    with Taker(broker.url, QUEUE, "mail") as taker:
        client.config_set("maxmemory", 1)
        try:
            taker.drain(lambda: len(taker.messages) == 10)
            assert client.hlen("unacked") == client.zcard("unacked_index") == 10
        finally:
            client.config_set("maxmemory", 0)


def test_a_consumer_that_does_not_ack_leaves_no_note(broker, client):
    """Or Redis would hand out again what nobody is going to ack."""
    publish(broker, 1)
    with Taker(broker.url, no_ack=True) as taker:
        taker.drain(lambda: taker.messages)
    assert client.hlen("unacked") == 0


def test_a_key_prefix_is_put_before_every_key(broker, client):
    """Apps that share a Redis stay apart, down to what is set aside."""
    with Connection(broker.url, transport_options={"global_keyprefix": "shop:"}) as connection:
        Producer(connection).publish(1, exchange="", routing_key=QUEUE)
    client.lpush(f"shop:{QUEUE}", b"nonsense")
    with Taker(broker.url, global_keyprefix="shop:") as taker:
        taker.drain(lambda: taker.messages)
        assert client.hlen("shop:unacked") == 1
        taker.messages[0].ack()
        taker.drain(lambda: client.llen("shop:" + ASIDE % QUEUE) == 1)
    assert not [key for key in client.scan_iter() if not key.startswith(b"shop:")]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x80\x04pickle",
        b"{",
        b"[1]",
        b"null",
        b"{}",
        b'{"properties": 1}',
        b'{"properties": [], "body": "1"}',
        b'{"properties": {}, "headers": ["a"]}',
        b'{"properties": {}, "headers": 5}',
        b'{"body": 5, "properties": {"body_encoding": "base64"}}',
        b'{"body": "1", "properties": {"body_encoding": {"a": 1}}}',
        # What Redis's reader takes for JSON, and Python's does not.
        b'{"body": nan, "properties": {"delivery_info": {}, "delivery_tag": "t"}}',
        b'{"body": "a\x01\nb", "properties": {"delivery_info": {}, "delivery_tag": "t"}}',
        b'{"body": 0x10, "properties": {"delivery_info": {}, "delivery_tag": "t"}}',
        b'{"body": +1, "properties": {"delivery_info": {}, "delivery_tag": "t"}}',
        b'{"body": "\xff", "properties": {"delivery_info": {}, "delivery_tag": "t"}}',
        b'{"body": ' + b"9" * 5000 + b', "properties": {"delivery_tag": "t"}}',
        b'{"headers": ' + b"[" * 900 + b"]" * 900 + b', "properties": {"delivery_tag": "t"}}',
        b'{"headers": ' + b"[" * 9000 + b"]" * 9000 + b', "properties": {"delivery_tag": "t"}}',
        b'{"headers": {"a": [' + b"{}," * 200_000 + b'{}]}, "properties": {"delivery_tag": "t"}}',
        b"",
        b"\xef\xbb\xbf{}",
        '{"properties": {}}'.encode("utf-16"),
        (
            b'{"body": "1", '
            b'"properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "t"}}'
        ),
    ],
)
def test_what_is_no_message_is_set_aside_as_it_is(broker, client, caplog, nonsense):
    """And does not keep what comes after it from being received, nor the worker from running."""
    client.lpush(QUEUE, nonsense)
    publish(broker, "next")
    with Taker(broker.url) as taker:
        taker.drain(lambda: taker.messages)
        assert taker.bodies() == ["next"]
        taker.messages[0].ack()
        assert client.hlen("unacked") == client.zcard("unacked_index") == 0
    assert client.lrange(ASIDE % QUEUE, 0, -1) == [nonsense]
    assert ASIDE % QUEUE in caplog.text
    assert "pickle" not in caplog.text
    assert not [r for r in caplog.records if len(r.getMessage()) > 300]


def test_acks_that_redis_does_not_take_are_given_again(broker, client, monkeypatch, caplog):
    """By the worker's own loop; the message is not delivered again meanwhile."""
    publish(broker, 1)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
        later = []

        class Loop:
            def call_later(self, _seconds, callback):
                later.append(callback)

        taker.channel.connection.loop = Loop()
        taker.messages[0].ack()
        assert client.hlen("unacked") == 1
        broken = taker.channel.unacked_key
        client.rename("unacked", "kept")
        client.set(broken, "of the wrong type")
        later.pop(0)()
        assert "not taken yet" in caplog.text
        client.rename("kept", "unacked")
        later.pop(0)()
        assert client.hlen("unacked") == client.zcard("unacked_index") == 0
        assert not later


def test_an_ack_that_comes_while_others_are_refused_is_given_with_them(broker, client):
    """Under gevent tasks go on while Redis is waited for."""
    publish(broker, 1, 2)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        later = []

        class Loop:
            def call_later(self, _seconds, callback):
                later.append(callback)

        def refuse():
            del taker.channel.conn_or_acquire
            taker.messages[1].ack()
            raise ConnectionError

        taker.channel.connection.loop = Loop()
        taker.channel.conn_or_acquire = refuse
        taker.messages[0].ack()
        while later:
            later.pop(0)()

        assert client.hlen("unacked") == client.zcard("unacked_index") == 0


def test_only_what_a_dead_worker_left_is_marked_as_such(broker, client):
    """What is marked runs one at a time; what a living worker gives back is no suspect."""
    publish(broker, "lost", "given back")
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        lost, given_back = taker.messages
        client.zadd("unacked_index", {lost.delivery_tag: 1})
        taker.channel.qos._restored_at_s = 0.0
        taker.channel.qos.restore_visible()
        given_back.reject(requeue=True)
        taker.drain(lambda: len(taker.messages) == 4)
        marked = {m.payload: SWEPT_HEADER in m.headers for m in taker.messages[2:]}

    assert marked == {"lost": True, "given back": False}


def test_closing_a_channel_acks_what_is_to_be_acked(broker, client):
    """Done is done though the worker stops within the acks' wait; the rest is given back."""
    publish(broker, 1, 2)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: len(taker.messages) == 2)
        taker.channel.connection.loop = type("Loop", (), {"call_later": lambda *_: None})()
        taker.messages[0].ack()
        assert client.hlen("unacked") == 2
    assert client.hlen("unacked") == 0
    assert client.llen(QUEUE) == 1, "the other one is back in the queue"


def test_an_ack_that_comes_after_its_connection_was_lost_ends_no_worker(broker, client):
    """A task was under way when the broker went: its message was given back, and comes again."""
    publish(broker, 1)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.drain(lambda: taker.messages)
    assert taker.messages[0].channel.connection is None

    taker.messages[0].ack()

    assert client.llen(QUEUE) == 1


def test_a_consumer_that_raises_gives_the_others_back(broker, client):
    """Messages are taken in groups: those behind the one that raised go on."""
    publish(broker, 1, 2, 3)
    with Taker(broker.url, visibility_timeout=60) as taker:
        taker.consumer.on_message = _refuse
        with pytest.raises(ZeroDivisionError):
            taker.drain(lambda: False)
        assert client.hlen("unacked") == 1
        assert client.llen(QUEUE) == 2


def _refuse(_message):
    raise ZeroDivisionError


def test_a_dead_workers_messages_come_back_by_the_clock(broker, client):
    """In a pool without an event loop too, and while other messages keep coming."""
    publish(broker, "lost")
    dead = Taker(broker.url)
    dead.drain(lambda: dead.messages)
    dead.channel.qos._on_collect.cancel()  # or it would give its message back at exit
    with Taker(broker.url, prefetch=1000) as taker:

        def found():
            publish(broker, "busy")
            return "lost" in taker.bodies()

        taker.drain(found)


def conf(url, **options):
    return Celery("shop", broker=url, set_as_current=False, changes=options)


@pytest.mark.parametrize(
    ("url", "chosen", "ssl"),
    [
        ("redis://h/0", "Transport", False),
        ("rediss://h/0?ssl_cert_reqs=required", "Transport", True),
        ("rediss://h/0", "Transport", True),
        ("sentinel://a:1;sentinel://b:2", "SentinelTransport", False),
        ("amqp://h//", None, False),
        ("memory://", None, False),
    ],
)
def test_a_worker_of_the_deliver_queue_alone_is_given_it(url, chosen, ssl):
    """Unasked, with TLS as the URL says it; a broker that is no Redis keeps its own."""
    app = conf(url)
    app.amqp.queues.select([QUEUE])
    choose(app, QUEUE)
    wanted = f"optly_celery.worker.receive.transport:{chosen}" if chosen else None
    assert app.conf.broker_transport == wanted
    connection = app.connection_for_read()
    assert bool(connection.ssl) is ssl
    assert isinstance(connection.transport, Transport) is bool(chosen)
    assert connection.hostname in ("h", "a", None)


def test_no_other_worker_is_given_it():
    """Who does not consume the deliver queue receives as ever; who consumes more than it is."""
    app = conf("redis://h/0")
    choose(app, QUEUE)
    assert app.conf.broker_transport is None, "it consumes celery"
    app.amqp.queues.select(["mail"])
    choose(app, QUEUE)
    assert app.conf.broker_transport is None
    app.amqp.queues.select([QUEUE, "mail"])
    choose(app, QUEUE)
    assert app.conf.broker_transport.endswith(":Transport")


def test_a_transport_that_the_user_names_stays():
    """``broker_transport`` is a decision, and not ours to improve upon."""
    app = conf("redis://h/0", broker_transport="redis")
    app.amqp.queues.select([QUEUE])
    choose(app, QUEUE)
    assert app.conf.broker_transport == "redis"


def test_what_it_overrides_is_there():
    """Names of kombu's own that are not documented: a release without them shows here."""
    for name in ("_brpop_start", "_brpop_read", "_create_client", "conn_or_acquire", "_q_for_pri"):
        assert callable(getattr(stock.Channel, name))
    for name in ("append", "ack", "restore_visible", "restore_by_tag"):
        assert callable(getattr(stock.QoS, name))
    assert issubclass(Channel, stock.Channel)


def test_what_parking_and_the_kept_client_use_is_there(broker, client):
    """More such names, where only an object has them: of a channel, its messages, its client."""
    publish(broker, "one")
    for transport in (None, TRANSPORT):
        with Taker(broker.url, transport=transport) as taker:
            taker.drain(lambda taker=taker: taker.messages)
            channel, (message,) = taker.channel, taker.messages
            assert channel.ack_emulation
            assert (channel.unacked_key, channel.unacked_index_key) == ("unacked", "unacked_index")
            assert channel.global_keyprefix == ""
            assert channel._q_for_pri(QUEUE, channel.priority_steps[0]) == QUEUE
            # What is parked is what kombu itself would write as unacked.
            noted = json.loads(client.hget("unacked", message.delivery_tag))[0]
            assert json.loads(json.dumps(message._raw)) == noted
            assert message._state == "RECEIVED"
            assert channel.Message(message._raw, channel=channel).payload == "one"
            virtual.QoS.ack(channel.qos, message.delivery_tag)
            assert client.hexists("unacked", message.delivery_tag), "only forgotten, not acked"
            virtual.QoS.append(channel.qos, message, message.delivery_tag)
            with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
                assert first.connection_pool is second.connection_pool
                assert (first is second) == (transport is TRANSPORT)
                assert first.execute_command("EVAL", "return {KEYS[1], ARGV[1]}", 1, "k", "a")
            assert callable(taker.consumer._receive_callback)
            message.reject(requeue=True)


def test_what_the_publisher_keeps_is_made_by_the_channel(broker):
    """An undocumented name: a kombu without it, or with clients beside the pool, shows here."""
    with Connection(broker.url) as connection:
        channel = connection.channel()
        assert channel._create_client().connection_pool is channel.pool


@pytest.mark.parametrize(("version", "told"), [((5, 6, 2), 1), ((5, 7, 0), 0), ((6, 0, 0), 0)])
def test_a_kombu_that_waits_for_ever_is_told_of(monkeypatch, caplog, version, told):
    """A broker that is gone without a word: a worker with an older one needs a restart then."""
    monkeypatch.setattr(kombu, "VERSION", version)
    monkeypatch.setattr(stock.Transport, "register_with_event_loop", lambda *_: None)

    Transport.__new__(Transport).register_with_event_loop(None, None)

    assert len([r for r in caplog.records if "gone without a word" in r.getMessage()]) == told
