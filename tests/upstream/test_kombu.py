"""kombu: its Redis transport, over which receipt in one step is put, and its messages."""

from __future__ import annotations

import pytest
from kombu import Connection
from kombu.transport import redis, virtual

from .borrowed import rows, says, takes

SEEN = "kombu 5.4.2, 5.5.4, 5.6.2, 5.7.0"
REDIS, VIRTUAL = "kombu.transport.redis", "kombu.transport.virtual.base"
CHANNEL, QOS, TRANSPORT = f"{REDIS}:Channel", f"{REDIS}:QoS", f"{REDIS}:Transport"
RECEIPT, OURS = "worker/receive/receipt.py", "worker/receive/transport.py"
NOTES = "worker/receive/notes.py"
STOCK = "have `choose` return at once: the stock transport receives, and a kill may lose a message"


def _its_keys_are_as_in_the_script() -> None:
    channel = redis.Channel
    assert (channel.unacked_key, channel.unacked_index_key) == ("unacked", "unacked_index")


def _a_message_is_made_of_what_is_noted() -> None:
    with Connection("memory://") as connection:
        channel = connection.channel()
        raw = channel.prepare_message("one")
        raw["properties"]["delivery_tag"] = "tag"
        message = channel.Message(raw, channel=channel)
        assert message._raw == raw
        assert message._state == "RECEIVED"


ROWS = [
    *rows(
        CHANNEL, where=RECEIPT, seen=SEEN, gone=STOCK,
        names={
            "_brpop_start": (
                "the script instead of BRPOP", takes(f"{CHANNEL}._brpop_start", "timeout")),
            "_brpop_read": ("its answer", says(f"{CHANNEL}.__init__", "self._brpop_read")),
            "_queue_cycle": ("each queue's turn", says(f"{CHANNEL}._brpop_read",
                                                       "self._queue_cycle.rotate(")),
            "sep": ("between a queue's name and a priority", says(f"{CHANNEL}._brpop_read",
                                                                  "self.sep")),
            "_in_poll": ("a command is under way", says(f"{CHANNEL}._brpop_read", "_in_poll = ")),
            "_qos": "whether there are acks to settle at the end",
            "_create_client": ("one client, kept", takes(f"{CHANNEL}._create_client")),
            "active_queues": "which queues are consumed",
            "ack_emulation": "whether there are acks",
            "priority_steps": "the lists of a queue",
            "global_keyprefix": "before each key",
            "unacked_restore_limit": "how many in a sweep",
            "basic_consume": (
                "notes queues without acks", takes(f"{CHANNEL}.basic_consume", "queue")),
            "close": "settles before it",
            "conn_or_acquire": ("one client, kept", takes(f"{CHANNEL}.conn_or_acquire", "client")),
            "client": "its connection waits for messages",
            "connection_errors": "a lost connection",
            "ResponseError": "a full Redis, or one before 6.2",
        },
    ),
    *rows(
        CHANNEL, where=NOTES, seen=SEEN, gone=STOCK,
        names={
            "_q_for_pri": ("names of the lists", takes(f"{CHANNEL}._q_for_pri", "queue", "pri")),
            "priority_steps": "the lists of a queue",
            "unacked_key": ("what is unacked", _its_keys_are_as_in_the_script),
            "unacked_index_key": "since when",
            "connection_errors": "a lost connection",
            "Message": ("made of what was taken", says(f"{VIRTUAL}:Channel.basic_consume",
                                                       "self.Message(")),
            "_lookup": ("where an exchange leads", takes(f"{CHANNEL}._lookup",
                                                         "exchange", "routing_key")),
            "_get_message_priority": ("which list", takes(f"{CHANNEL}._get_message_priority",
                                                          "message", "reverse")),
        },
    ),
    *rows(
        "kombu.transport", where=NOTES, seen=SEEN, gone=STOCK,
        names={"virtual": "holds a message without Redis"},
    ),
    *rows(
        "kombu.transport.virtual", where=NOTES, seen=SEEN, gone=STOCK,
        names={"QoS.append": ("knows a message that was taken", takes(
            f"{VIRTUAL}:QoS.append", "message", "delivery_tag"))},
    ),
    *rows(
        f"{VIRTUAL}:Transport", where="worker/receive/origin.py", seen=SEEN,
        gone="nothing: messages of brokers without AMQP are then decompressed without a limit, "
        "in a worker of several queues",
        names={"_callbacks": ("what makes a message and hands it over", says(
            f"{VIRTUAL}:Channel.basic_consume", "_callbacks[queue] = "))},
    ),
    *rows(
        CHANNEL, where="worker/older.py", seen=SEEN, gone="leave it to kombu 5.7, and require that",
        names={"_in_poll": "a command is under way", "health_check_interval": "how long"},
    ),
    *rows(
        CHANNEL, where="worker/older.py", seen="kombu 5.6.2, 5.7.0", since="kombu 5.6",
        gone="wait for 1 s, as before 5.6",
        names={"brpop_timeout": "how long to wait for a message: its polling_interval"},
    ),
    *rows(
        CHANNEL, where="worker/older.py", seen="kombu 5.7.0", since="kombu 5.7",
        gone="leave it out, and look whether its own receipt still drops a silent connection",
        names={"_flush_brpop_reauth": "a password that changes"},
    ),
    *rows(
        CHANNEL, where=f"{RECEIPT} worker/older.py", seen="kombu 5.7.0", since="kombu 5.7",
        gone="leave it out, and look whether its own receipt still drops a silent connection",
        names={
            "_brpop_sent_at": ("a silence is noticed", says(
                f"{REDIS}:MultiChannelPoller.maybe_check_brpop_health", "_brpop_sent_at")),
        },
    ),
    *rows(
        CHANNEL, where=OURS, seen=SEEN,
        gone="the option sets something else: see the transport's documentation",
        names={"from_transport_options": (
            "options that become attributes",
            says(f"{VIRTUAL}:Channel.__init__", "from_transport_options"))},
    ),
    *rows(
        CHANNEL, where=f"{RECEIPT} {OURS} worker/older.py", seen="kombu 5.7.0",
        since="kombu 5.7",
        gone="ours reads it in QoS.restore_visible itself",
        names={"unacked_restore_interval": "how often to look for dead workers' messages"},
    ),
    *rows(
        QOS, where=OURS, seen=SEEN, gone=STOCK,
        names={
            "ack": ("acks go together", takes(f"{QOS}.ack", "delivery_tag")),
            "restore_visible": ("by the clock", takes(f"{QOS}.restore_visible",
                                                      "start", "num", "interval")),
            "restore_by_tag": ("gives one back", says(f"{QOS}.reject", "self.restore_by_tag(")),
            "restore_unacked": ("gives all back at the end", says(
                f"{VIRTUAL}:QoS.restore_unacked_once", "self.restore_unacked()")),
            "_delivered": "what is unacked here",
            "unacked_key": "what is unacked",
            "unacked_index_key": "since when",
            "channel": ("ours", says(f"{VIRTUAL}:QoS.__init__", "self.channel = ")),
        },
    ),
    *rows(
        QOS, where=RECEIPT, seen=SEEN, gone=STOCK,
        names={
            "can_consume_max_estimate": "how many may be taken",
            "prefetch_count": "whether there is a limit",
        },
    ),
    *rows(
        CHANNEL, where=OURS, seen=SEEN, gone=STOCK,
        names={"QoS": ("ours", says(f"{VIRTUAL}:Channel.qos", "self.QoS("))},
    ),
    *rows(
        TRANSPORT, where=OURS, seen=SEEN, gone=STOCK,
        names={
            "": "the base of ours",
            "Channel": ("ours", says(f"{VIRTUAL}:Transport.create_channel", "self.Channel(")),
            "register_with_event_loop": ("knows the loop", takes(
                f"{TRANSPORT}.register_with_event_loop", "connection", "loop")),
            "default_port": "of a URL without one",
        },
    ),
    *rows(
        f"{REDIS}:SentinelTransport", where=OURS, seen=SEEN,
        gone="leave sentinel:// to the stock transport, in `choose`",
        names={"default_port": "26379"},
    ),
    *rows(
        f"{REDIS}:SentinelChannel", where=OURS, seen=SEEN,
        gone="leave sentinel:// to the stock transport, in `choose`",
        names={"": "the base of ours", "from_transport_options": "as above"},
    ),
    *rows(
        "kombu.transport", where=OURS, seen=SEEN, gone=STOCK,
        names={"redis": "the base of ours", "virtual": "forgets a message without Redis"},
    ),
    *rows(
        "kombu.transport.virtual", where="worker/pause/parking.py", seen=SEEN,
        gone="have `can_park` answer False: a paused host then holds the others up",
        names={"QoS.ack": ("forgets a message that was parked", takes(
                   f"{VIRTUAL}:QoS.ack", "delivery_tag"))},
    ),
    *rows(
        "kombu.transport", where="worker/pause/parking.py", seen=SEEN,
        gone="have `can_park` answer False: a paused host then holds the others up",
        names={"virtual": "acks without Redis"},
    ),
    *rows(
        f"{VIRTUAL}:Message", where="worker/pause/parking.py", seen=SEEN,
        gone="have `can_park` answer False: a paused host then holds the others up",
        names={"_raw": ("what is parked", _a_message_is_made_of_what_is_noted),
               "_state": "a message that was parked is settled"},
    ),
    *rows(
        "kombu:Consumer", where="worker/pause/step.py", seen=SEEN,
        gone="see how a consumer hands a message to Celery: only so can a probe be taken",
        names={"_receive_callback": ("a message as if it had just come", takes(
            "kombu:Consumer._receive_callback", "message"))},
    ),
    *rows(
        CHANNEL, where="enqueue/publisher.py", seen=SEEN,
        gone="nothing: it goes on with a client for each publish, a third slower",
        names={"_create_client": ("one client, kept", says(f"{CHANNEL}.conn_or_acquire",
                                                           "self._create_client()"))},
    ),
    *rows(
        "kombu:Producer", where="enqueue/publisher.py", seen="kombu 5.7.0", since="kombu 5.7",
        gone="nothing: a batch then takes a round trip for each message",
        names={"supports_batch_publish": "one round trip", "batch": "one round trip"},
    ),
    *rows(
        f"{VIRTUAL}:Channel", where="status/questions.py", seen=SEEN,
        gone="the passive declare below it; with a global_keyprefix it answers 0",
        names={"_size": ("how long a queue is", takes(f"{VIRTUAL}:Channel._size", "queue"))},
    ),
    *rows(
        "kombu.pidbox:Mailbox", where="status/questions.py", seen=SEEN,
        gone="app.control.inspect(connection=…), which may wait longer than it was told",
        names={"call": "one worker", "multi_call": "all of them",
               "producer_pool": "none: its connections have no limits"},
    ),
    *rows(
        "kombu.common:QoS", where="worker/tuning/eta_limit.py", seen=SEEN,
        gone="leave EtaLimit out, and set worker_eta_task_limit no more",
        names={"": ("the limit", takes("kombu.common:QoS", "callback", "initial_value")),
               "_mutex": "held while it changes",
               "increment_eventually": "one waits", "decrement_eventually": "one is due"},
    ),
    *rows(
        "kombu.serialization", where="worker/readable.py", seen=SEEN,
        gone="json.dumps, and the content type by hand",
        names={"dumps": ("a body as kombu writes it", takes("kombu.serialization:dumps",
                                                            "data", "serializer"))},
    ),
    *rows(
        "kombu.message:Message", where="worker/readable.py", seen=SEEN,
        gone="refuse messages with callbacks: what is published for a stranger then stays",
        names={"_decoded_cache": ("what `payload` answers with", says(
            "kombu.message:Message.decode", "_decoded_cache"))},
    ),
    *rows(
        "kombu.serialization", where="contrib/django/checks.py", seen=SEEN,
        gone="compare accept_content with the names by text",
        names={"prepare_accept_content": "whether the worker takes JSON"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()


def test_the_plain_classes_are_those_that_the_redis_ones_derive_from():
    """`virtual.QoS.ack` is called past `redis.QoS.ack`, which would ask Redis at once."""
    assert issubclass(redis.QoS, virtual.QoS)
    assert issubclass(redis.Channel, virtual.Channel)
