"""Whether Celery can run a message: looked at before Celery's first use of anything in it.

Whatever a sender of any language has put there, each part has its type, or the message is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from celery.app.task import Context
from celery.utils.time import maybe_iso8601, maybe_make_aware, timezone
from kombu.asynchronous.timer import to_timestamp
from kombu.serialization import dumps

from ..names import DELIVER_TASK, ENQUEUED_AT_HEADER, REFUSED_HEADER

_LONGEST_LINE = 1000


def check(message: Any) -> None:
    """See that body and headers are as Celery's message protocols have them.

    From a message of the deliver task it takes away what would have the worker run or publish
    something else for the sender, or stand for a part of Celery's own request.

    Raises:
        Exception: any at all, when they are not.
    """
    headers, payload = message.headers, message.payload
    if isinstance(payload, dict) and "args" in payload:
        known = headers if "id" in headers else payload
        args, kwargs, embed = payload["args"], payload.get("kwargs") or {}, None  # protocol 1
    else:
        known = headers
        args, kwargs, embed = payload
    _check_types(message, known)
    if not (
        isinstance(args, (list, tuple))
        and _is_options(kwargs)
        and (embed is None or _is_options(embed))
    ):
        raise TypeError
    if known["task"] == DELIVER_TASK:
        message.headers = _without_foreign(headers)
        if isinstance(payload, dict):
            for name in payload.keys() - _without_foreign(payload).keys() - {"args", "kwargs"}:
                del payload[name]
        elif embed and any(embed.values()):
            message.content_type, message.content_encoding, body = dumps([args, kwargs, {}], "json")
            message.body = body.encode() if isinstance(body, str) else body
            message._decoded_cache = [args, kwargs, {}]  # noqa: SLF001 - what `payload` looks at


def _check_types(message: Any, headers: Mapping[str, Any]) -> None:
    for name in ("task", "id"):
        if not _is_line(headers[name]) or not headers[name]:
            raise TypeError(name)
    for name, is_right in _TYPES.items():
        value = headers.get(name)
        if value is not None and not is_right(value):
            raise TypeError(name)
    hard, soft = headers.get("timelimit") or (None, None)
    if not all(limit is None or _is_seconds(limit) for limit in (hard, soft)):
        raise TypeError("timelimit")
    for when in filter(None, (headers.get("eta"), headers.get("expires"))):
        # As Celery does it, too late: it deletes what overflows.
        to_timestamp(timezone.to_system(maybe_make_aware(maybe_iso8601(when))))
    properties = message.properties or {}
    if not isinstance(message.delivery_info or {}, dict) or not isinstance(properties, dict):
        raise TypeError("properties")
    for name in ("reply_to", "correlation_id"):
        if not isinstance(properties.get(name) or "", str):
            raise TypeError(name)


def _without_foreign(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of headers, those that are Celery's for a single task, or nobody's name in a request."""
    return {
        name: value
        for name, value in found.items()
        if name in _KEPT or not (name.startswith("_") or hasattr(Context, name))
    }


def _is_line(value: object) -> bool:
    """Text that can be shown in a line of a log."""
    return isinstance(value, str) and len(value) <= _LONGEST_LINE and value.isprintable()


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_seconds(value: object) -> bool:
    return _is_number(value) and value >= 0  # type: ignore[operator]


def _is_lines(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_line, value))


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_TYPES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("lang", "shadow", "root_id", "parent_id", "group", "origin"), _is_line),
    **dict.fromkeys(("argsrepr", "kwargsrepr", "eta", "expires"), _is_text),
    **dict.fromkeys(("retries", "replaced_task_nesting", REFUSED_HEADER), _is_count),
    "ignore_result": lambda value: isinstance(value, bool),
    "stamped_headers": _is_lines,
    "stamps": _is_options,
    ENQUEUED_AT_HEADER: _is_number,
}
"""Headers that the worker looks at, where they are given, and what each has to be."""

_KEPT = {*_TYPES, "task", "id", "timelimit", "utc", "args", "kwargs", "group_index", "redelivered"}
