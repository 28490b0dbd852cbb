"""What lies in Redis, read piece by piece: whatever it is, it is read or it is an error. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...names import SWEPT_HEADER

# Of one message's envelope. Its body is one text in it, and Celery's has some forty pieces in three
# levels; millions of pieces would take a hundred times their bytes in memory.
_MOST_PIECES = 100_000
_DEEPEST = 50


def message_in(item: bytes, tag: str) -> dict[str, Any]:
    """A message as it lay in the queue; a tag, without which kombu makes none, if it has none.

    Raises:
        Exception: any at all, when this is none.
    """
    raw = _json(item)
    raw["properties"].setdefault("delivery_tag", tag)
    return raw  # type: ignore[no-any-return]


def note_of(text: bytes) -> tuple[dict[str, Any], str, str]:
    """What kombu notes of an unacked message: the message, exchange and routing key.

    Raises:
        Exception: any at all, when this is no note.
    """
    message, exchange, routing_key = _json(text)
    exchange = "" if exchange is None else exchange
    if not isinstance(message, dict) or not isinstance(exchange, str):
        raise TypeError
    if not isinstance(routing_key, str):
        raise TypeError
    return message, exchange, routing_key


def text_in(note: bytes, queue: str) -> bytes:
    """What was in the queue, of a note that cannot be read; the whole note of another worker."""
    end = f', "", {json.dumps(queue)}]'.encode()
    is_ours = note.startswith(b"[") and note.endswith(end)
    return note[1 : -len(end)] if is_ours else note


def given_back(message: dict[str, Any], *, swept: bool) -> str:
    """A message as it goes back to its queue, marked as kombu marks it.

    Raises:
        RecursionError: it is too deep.
    """
    for part in (message.get("headers"), _info_of(message)):
        if isinstance(part, dict):
            part["redelivered"] = True
    if swept and isinstance(message.get("headers"), dict):
        message["headers"][SWEPT_HEADER] = True
    return json.dumps(message)


def _info_of(message: dict[str, Any]) -> Any:
    properties = message.get("properties")
    return properties.get("delivery_info") if isinstance(properties, dict) else None


def _json(text: bytes) -> Any:
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _MOST_PIECES:
        raise ValueError("too many pieces")
    found = json.loads(text.decode())
    if text.count(b"[") + text.count(b"{") > _DEEPEST and _depth(found) > _DEEPEST:
        raise ValueError("too deep")
    return found


def _depth(found: Any) -> int:
    depth, level = 0, [found]
    while level:
        depth, level = depth + 1, [part for one in level for part in _parts(one)]
    return depth


def _parts(one: Any) -> Iterator[Any]:
    if isinstance(one, dict):
        yield from one.values()
    elif isinstance(one, list):
        yield from one
