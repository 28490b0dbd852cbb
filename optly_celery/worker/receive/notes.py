"""Messages that Redis notes as unacked: made of what was taken, set aside, given back.

Whatever a message holds, it hurts no other: each is read by itself, and what cannot be read goes to
the list of what was set aside, as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from kombu.transport import virtual

from ...broker_errors import in_words
from . import reading
from .scripts import ADOPT, ASIDE, LATER, MOST_BYTES, MOVE, NOTE, OVERDUE, run
from .unfold import limited

logger = logging.getLogger(__name__)


def lists_of(channel: Any, queue: str) -> list[str]:
    """The lists of a queue, one for each priority."""
    return [channel._q_for_pri(queue, n) for n in channel.priority_steps]  # noqa: SLF001


def keys_of(channel: Any) -> tuple[str, str]:
    return channel.unacked_key, channel.unacked_index_key


def arguments(queue: str, tags: str, count: int) -> tuple[object, ...]:
    """Of `TAKE`, where ``tags`` is what the tags of these messages begin with."""
    return count, json.dumps(queue), tags, MOST_BYTES


def adopt(channel: Any, queue: str, tag: str, item: bytes) -> None:
    """Note what has been popped."""
    note = b"[" + item + f', "", {json.dumps(queue)}]'.encode()
    run(channel, ADOPT, keys_of(channel), tag, note)


def message_of(channel: Any, queue: str, tag: str, item: bytes, *, is_limited: bool = True) -> Any:
    """kombu's message, for its consumer; None for what is none, which was set aside."""
    try:
        raw = reading.message_in(item, tag)
        with limited() if is_limited else nullcontext():
            message = channel.Message(raw, channel=channel)
        # Not its sender's, which another message may have as well.
        message.delivery_tag = tag
    except Exception as exc:  # noqa: BLE001 - any at all: it depends on what is wrong
        set_aside(channel, queue, tag, item, type(exc).__name__)
        return None
    virtual.QoS.append(channel.qos, message, tag)
    return message


def set_aside(channel: Any, queue: str, tag: str | bytes, item: bytes | None, why: str) -> None:
    """Move what is no message from the unacked to its list; None is for the note as it is.

    Raises:
        Exception: whatever redis-py raises; it is unacked then.
    """
    what = () if item is None else (item,)
    run(channel, MOVE, (*keys_of(channel), ASIDE % queue), tag, "", "LPUSH", "", *what)
    told(channel, queue, 1, why)


def told(channel: Any, queue: str, count: int, why: str) -> None:
    """Tell a person, and what empties the list."""
    logger.error(
        "%d of what was in %s can be no message (%s): set aside in the Redis list %s",
        count, queue, why, ASIDE % queue,
    )  # fmt: skip
    getattr(channel, "on_set_aside", bool)()


def restore(
    channel: Any, tag: str | bytes, *, queue: str | None, leftmost: bool = False,
    swept: bool = False,
) -> None:  # fmt: skip
    """Give an unacked message back to the queue that it came from.

    ``queue`` is the one that this worker consumes: what cannot be read is set aside beside it.
    ``leftmost`` is behind what waits there.

    Raises:
        Exception: whatever redis-py raises; it is unacked then.
    """
    keys = keys_of(channel)
    note = run(channel, NOTE, keys[:1], tag, MOST_BYTES + 1024)
    try:
        if note is None:  # its ack has overtaken this
            run(channel, MOVE, keys, tag, "", "", "")
            return
        message, exchange, routing_key = reading.note_of(note)  # 1 is no note
        text = reading.given_back(message, swept=swept)
    except Exception as exc:
        if queue is None or _is_servers(channel, exc):
            raise
        item = reading.text_in(note, queue) if isinstance(note, bytes) else None
        set_aside(channel, queue, tag, item, type(exc).__name__)
        return
    lists = _lists_for(channel, message, exchange, routing_key)
    run(channel, MOVE, (*keys, *lists), tag, note, "LPUSH" if leftmost else "RPUSH", "", text)


def _lists_for(channel: Any, message: Any, exchange: str, routing_key: str) -> Sequence[str]:
    """Where kombu would put it; by name, or by the exchange that another's note says."""
    queues = channel._lookup(exchange, routing_key) if exchange else [routing_key]  # noqa: SLF001
    if not queues:
        # kombu would delete it.
        raise LookupError("no queue is bound there")
    try:
        priority = channel._get_message_priority(message, reverse=False)  # noqa: SLF001
        return [channel._q_for_pri(queue, priority) for queue in queues]  # noqa: SLF001
    except (TypeError, ValueError, OverflowError, AttributeError):
        return [lists_of(channel, queue)[0] for queue in queues]


def sweep(channel: Any, queue: str | None, *, older_than_s: float, most: int | None) -> None:
    """Give back what dead workers left, each by itself.

    Raises:
        Exception: whatever redis-py raises when it is not about one of them.
    """
    index = keys_of(channel)[1:]
    for tag in run(channel, OVERDUE, index, older_than_s, -1 if most is None else most):
        if not _is_restored(channel, tag, queue, swept=True):
            run(channel, LATER, index, tag)  # behind those that can be


def give_all_back(channel: Any, tags: Sequence[str], *, queue: str | None) -> None:
    """What this worker holds, at its end.

    Raises:
        Exception: the connection is lost. Then all that is left comes back by the sweep.
    """
    for tag in tags:
        _is_restored(channel, tag, queue)


def _is_restored(channel: Any, tag: str | bytes, queue: str | None, *, swept: bool = False) -> bool:
    try:
        restore(channel, tag, queue=queue, swept=swept)
    except Exception as exc:
        if _is_servers(channel, exc):
            raise
        logger.warning("an unacked message stays where it is: %s", in_words(exc))
        return False
    return True


def _is_servers(channel: Any, exc: Exception) -> bool:
    """Whether this is about the connection; kombu counts a KeyError as that."""
    return isinstance(exc, channel.connection_errors) and not isinstance(exc, LookupError)
