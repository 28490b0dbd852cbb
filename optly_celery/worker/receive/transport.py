"""kombu's Redis transport, with a receipt that no kill can lose and that takes many at once.

kombu pops a message and notes it as unacked in a second step; a worker that is killed, or a Redis
that is full, between the two loses it. Here one script does both. The keys and their contents are
kombu's own, so its restore of a dead worker's messages, its producers and its other workers go on
as they are; nothing has to be migrated, in either direction.

For a worker that consumes one queue; one with more of them pops as kombu does, and is safe from
then on. `choose` gives it to a worker of the deliver queue; ``broker_transport =
"optly_celery.consumer.redis_transport:Transport"`` gives it to any.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from kombu.transport import redis, virtual

from .. import older
from . import notes
from .receipt import AtomicReceipt

logger = logging.getLogger(__name__)

_SETTLE_S = 0.01  # a round trip for what is acked in this time; a kill makes so much come twice
_REFUSED_WAIT_S = 1.0


def choose(app: Any, queue: str) -> None:
    """Have a worker that consumes this queue receive by this transport.

    To be called before it connects. Not where its configuration names a transport, or where the
    broker is no Redis.
    """
    if app.conf.broker_transport or queue not in app.amqp.queues.consume_from:
        return
    stock = app.connection_for_read()
    chosen = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}.get(
        stock.transport_cls
    )
    if chosen is not None:
        # kombu reads TLS from the URL only as long as the URL names the transport.
        app.conf.broker_use_ssl = app.conf.broker_use_ssl or stock.ssl
        app.conf.broker_transport = f"{chosen.__module__}:{chosen.__name__}"


class QoS(redis.QoS):  # type: ignore[misc]
    """Acks that go to Redis together, some milliseconds later."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settled: list[str] = []
        self._restored_at_s = 0.0

    def ack(self, delivery_tag: str) -> None:
        """Never fails: what Redis does not take now it is given again, and else comes back."""
        virtual.QoS.ack(self, delivery_tag)
        connection = self.channel.connection
        if connection is None:  # lost, and what it held was given back when it was closed
            return
        self._settled.append(delivery_tag)
        loop = connection.loop
        if loop is None:
            self.settle()
        elif len(self._settled) == 1:
            loop.call_later(_SETTLE_S, self.settle)

    def settle(self) -> None:
        """Have Redis forget what was acked. Without MULTI, which a full Redis refuses."""
        tags, self._settled = self._settled, []
        if not tags:
            return
        try:
            with self.channel.conn_or_acquire() as client:
                pipe = client.pipeline(transaction=False)
                # In this order: a tag without a message is cleared by the next restore.
                pipe.hdel(self.unacked_key, *tags).zrem(self.unacked_index_key, *tags).execute()
        except Exception as exc:  # noqa: BLE001 - delivered all the same: it may come twice
            logger.warning("%d acks were not taken yet (%s)", len(tags), type(exc).__name__)
            self._settled = tags + self._settled
            if self.channel.connection and self.channel.connection.loop is not None:
                self.channel.connection.loop.call_later(_REFUSED_WAIT_S, self.settle)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: ARG002 - kombu's signature
        """Give one back in one step, whatever it holds."""
        notes.restore(self.channel, tag, queue=self.channel.serves, leftmost=leftmost)

    def restore_unacked(self, client: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Give back all that this worker holds; one that cannot be stops no other."""
        tags = list(self._delivered)
        self._delivered.clear()
        notes.give_all_back(self.channel, tags, queue=self.channel.serves)

    def restore_visible(self, *args: Any, num: int | None = None, **kwargs: Any) -> None:  # noqa: ARG002 - kombu's signature
        """By the clock, and each by itself; kombu counts calls, which in some pools come seldom.

        No lock keeps two workers from it: each step asks whether the message is still there.
        """
        older.leave_if_silent(self.channel)
        due = monotonic() - self._restored_at_s >= self.channel.unacked_restore_interval
        # A connection for something else, as for remote control, would not know where to put what
        # cannot be read.
        if not due or self.channel.serves is None:
            return
        self._restored_at_s = monotonic()
        try:
            notes.sweep(
                self.channel,
                self.channel.serves,
                older_than_s=self.visibility_timeout,
                most=num,
            )
        except self.channel.ResponseError as exc:
            # It is not what a worker should end for.
            logger.warning("no look for dead workers' messages (%s)", type(exc).__name__)


class Channel(AtomicReceipt, redis.Channel, older.NewerChannel):  # type: ignore[misc]
    """For a Redis server."""

    QoS = QoS
    from_transport_options = redis.Channel.from_transport_options + older.OPTIONS


class SentinelChannel(AtomicReceipt, redis.SentinelChannel, older.NewerChannel):  # type: ignore[misc]
    """For a Redis server that Sentinels know."""

    QoS = QoS
    from_transport_options = redis.SentinelChannel.from_transport_options + older.OPTIONS


class Transport(redis.Transport):  # type: ignore[misc]
    """``broker_transport`` for ``redis://`` and ``rediss://`` URLs."""

    Channel = Channel
    loop: Any = None
    serves: str | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.loop = loop
        older.warn_of_silence()
        super().register_with_event_loop(connection, loop)


class SentinelTransport(Transport):
    """``broker_transport`` for ``sentinel://`` URLs."""

    default_port = redis.SentinelTransport.default_port
    Channel = SentinelChannel
