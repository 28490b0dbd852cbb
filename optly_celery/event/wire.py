"""An event as a task message's body: Celery's message protocol 2, plain JSON, made as text."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping

_MARKER = '"__type__"'  # kombu's JSON decoder turns objects with this key into Python types


def message_body(url: str, verb: str, headers: str, body: str, *, as_text: bool = False) -> str:
    """The deliver task's message body; ``headers`` and ``body`` are JSON texts.

    Params travel as an object, or ``as_text``, which spares Celery reading them twice.
    """
    params = json.dumps(body) if as_text or must_be_text(body) else body
    return (
        f'[[{json.dumps(url)}, "{verb}", {params}], {{"headers": {headers}}}, '
        '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    )


def must_be_text(body: str) -> bool:
    """Whether params would not come through kombu's decoder unchanged as an object."""
    return _MARKER in body


def are_headers(headers: object) -> bool:
    """Whether these are texts by text."""
    if not isinstance(headers, (dict, Mapping)):  # dict first: the look at an ABC costs more
        return False
    for name, value in headers.items():  # noqa: SIM110 - half the time of all()
        if not (isinstance(name, str) and isinstance(value, str)):
            return False
    return True


def headers_text(headers: Mapping[str, str] | None) -> str:
    """Headers as JSON; the SDK gives every event the same ones, so this is a lookup."""
    return "null" if headers is None else _headers_text(tuple(headers.items()))


@functools.lru_cache(maxsize=64)
def _headers_text(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items))


@functools.lru_cache(maxsize=64)
def headers_of(text: str) -> Mapping[str, str] | None:
    """What `headers_text` was given; not to be changed."""
    return json.loads(text)  # type: ignore[no-any-return]
