"""Messages as no producer should write them: by hand, and by chance from a seed."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from optly_celery.names import (
    DELIVER_TASK,
    ENQUEUED_AT_HEADER,
    PARTS_HEADER,
    RECEIVED_AT_HEADER,
    REFUSED_HEADER,
    SWEPT_HEADER,
)

from ..support import US_URL, params_of

PACK: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "xz": lzma.compress,
}
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 5, 2**70, -1.5, float("nan"), float("inf"), "", "x", "a\nb",
    "\x1b[2J", "\ud800", "é\u202e", "9" * 300, [], [1], [[]], ["a", "b"], [None, None], ["a"] * 3,
    {}, {"a": 1}, {"a": {"b": [1]}}, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "tomorrow", "application/json", "base64", "gzip", "utf-8", "binary",
]  # fmt: skip
HEADERS = [
    "task", "id", "lang", "root_id", "parent_id", "group", "group_index", "meth", "shadow", "eta",
    "expires", "retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "ignore_result",
    "replaced_task_nesting", "stamped_headers", "stamps", "compression", "redelivered", "callbacks",
    "errbacks", "chain", "chord", "is_eager", "called_directly", "delivery_info", "get", "update",
    "headers", "hostname", "reply_to", "correlation_id", "properties", "args", "kwargs",
    "_protected", ENQUEUED_AT_HEADER, REFUSED_HEADER,
    SWEPT_HEADER, PARTS_HEADER, RECEIVED_AT_HEADER,
]  # fmt: skip
PROPERTIES = [
    "body_encoding", "delivery_info", "delivery_tag", "delivery_mode", "priority", "reply_to",
    "correlation_id",
]  # fmt: skip
PARTS = ["body", "headers", "properties", "content-type", "content-encoding"]


def envelope(body: Any, **headers: Any) -> dict[str, Any]:
    """A message as a program of any language may put it into the queue, all of it in order."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"id": "the-task", "task": DELIVER_TASK, "lang": "go", **headers},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "optimizely"},
            "delivery_tag": "the-tag",
        },
    }


def by_chance(seed: int, count: int) -> Iterator[bytes]:
    """So many odd messages, the same for the same seed; no two hold the same bytes.

    One part of each is not as it should be, or several. The event of number ``n`` has the uuid
    ``odd-n``, and the visitor ``visitor-odd-n``. None has expired, and none is due later: those are
    not odd.
    """
    rng = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for n in range(count):
        yield _odd(rng, n)


def _odd(rng: Random, n: int) -> bytes:
    event = [US_URL, "POST", params_of(f"visitor-odd-{n}", f"odd-{n}")]
    # Blanks behind it, so that no two are the same.
    return rng.choice(KINDS)(rng, event, f"odd-task-{n}") + b" " * (n % 7)


def _header(rng: Random, event: list[Any], task: str) -> bytes:
    message = envelope([event, {}, None], id=task)
    for _ in range(rng.choice([1, 1, 2, 4])):
        message["headers"][rng.choice(HEADERS)] = rng.choice(ODD_VALUES)
    return _text(message)


def _property(rng: Random, event: list[Any], task: str) -> bytes:
    message = envelope([event, {}, None], id=task)
    message["properties"][rng.choice(PROPERTIES)] = rng.choice(ODD_VALUES)
    return _text(message)


def _part(rng: Random, event: list[Any], task: str) -> bytes:
    return _text(envelope([event, {}, None], id=task) | {rng.choice(PARTS): rng.choice(ODD_VALUES)})


def _packed(rng: Random, event: list[Any], task: str) -> bytes:
    name = rng.choice([*PACK, "application/x-nothing", "zstd"])
    packed = PACK.get(name, zlib.compress)(json.dumps([event, {}, None]).encode())
    if rng.random() < 0.5:
        at = rng.randrange(len(packed))
        packed = packed[:at] + rng.randbytes(3) + packed[at + rng.randrange(5) :]
    return _text(envelope(packed, id=task, compression=name))


def _protocol_1(rng: Random, event: list[Any], task: str) -> bytes:
    body = {"id": task, "task": DELIVER_TASK, "args": event, "kwargs": {}}
    body[rng.choice([*HEADERS, *body])] = rng.choice(ODD_VALUES)
    message = envelope(body)
    return _text(message | {"headers": {}} if rng.random() < 0.8 else message)


def _text(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def _body(rng: Random, event: list[Any], task: str) -> bytes:
    body: Any = rng.choice(
        [
            [event, {}, {rng.choice(["callbacks", "chain", "chord", "x"]): rng.choice(ODD_VALUES)}],
            [event, {}, rng.choice(ODD_VALUES)],
            [event, rng.choice(ODD_VALUES), None],
            [rng.choice(ODD_VALUES), {}, {"n": event}],
            [[*event[:2], rng.choice(ODD_VALUES)], {"n": event[2]}, {}],
            [[rng.choice(ODD_VALUES), *event[1:]], {}, {}],
            [event[:1], {"verb": rng.choice(ODD_VALUES), "params": event[2]}, {}],
            [event, {}],
            event,
            {"event": event},
            json.dumps(event).encode()[:-3],
            json.dumps(event).encode("utf-16"),
            json.dumps([event, {}, {}]).encode().replace(b"true", b"nan"),
            json.dumps([event, {}, {}]).encode().replace(b"true", b"NaN"),
        ]
    )
    return _text(envelope(body, id=task))


def _bytes(rng: Random, event: list[Any], task: str) -> bytes:
    """Some bytes changed, left out or put in."""
    text = _text(envelope([event, {}, None], id=task))
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(text))
        new = rng.choice([rng.randbytes(1), b"", *BYTES])
        text = text[:at] + new + text[at + rng.choice([0, 1, 3]) :]
    return text


BYTES = [b"\x00", b"\x01", b"\n", b"nan", b"[" * 60, b"\xff", b'"', b"}", b"1e999"]
KINDS = [_header, _header, _property, _part, _body, _packed, _protocol_1, _bytes]
