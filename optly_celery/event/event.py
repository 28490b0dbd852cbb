"""One event, as the Optimizely SDK built it, in a form that survives the queue unchanged.

An event's ``body`` is made once, by the call that the SDK's own dispatcher makes
(``json.dumps(params)``), and is what gets POSTed on every attempt: Python's JSON encoder and
decoder keep key order, integers of any size, floats and unicode, so decoding and encoding it
again in a worker gives the same bytes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import NotAnEventError

MAX_OBJECT_BYTES = 3_500_000
"""Largest JSON object that the Event API takes (Event API, "Bundle events and visitors")."""

VERBS = ("GET", "POST")

_encode = json.JSONEncoder(
    allow_nan=False, check_circular=False
).encode  # json.dumps would make one for each call


def _no_constant(name: str) -> None:
    raise ValueError(name)


_decode = json.JSONDecoder(parse_constant=_no_constant).decode  # NaN is no JSON

# What may be a number that Python reads as infinity; a uuid is none.
_HUGE = re.compile(r"[\s,:\[]-?\d[\d.]*[eE]\+?\d{3}")

_HOST = re.compile(r"[a-z0-9.:_-]{1,253}")  # nothing else is let into a log line

_MARKER = '"__type__"'  # kombu's JSON decoder turns objects with this key into Python types


class _Fields(NamedTuple):
    """A named tuple, as a frozen dataclass takes four times as long to make."""

    url: str
    verb: str
    given: Any  # params; the body itself where they came as text
    headers: Mapping[str, str] | None
    body: str


class Event(_Fields):
    """What to send where. Build it with `Event.of`, which refuses what is no event.

    ``body`` is ASCII, so its length is its size in bytes. ``params`` must not be changed.
    """

    @classmethod
    def of(
        cls,
        url: object,
        params: object,
        verb: object = "POST",
        headers: Any = None,
        *,
        ours: bool = False,
    ) -> Event:
        """Check what was handed over and freeze it.

        ``params`` is a dictionary, or its JSON as text, which then is the body as it stands. Text
        that is ``ours``, from a message of this package, was checked when it was written: it is
        read when somebody asks for a part of it, which is a third of what a batch costs a worker.

        Raises:
            NotAnEventError: with the reason; the message holds no event data.
        """
        if not isinstance(url, str) or not url.strip():
            raise NotAnEventError("the event has no url", reason="no_url")
        name = "POST" if verb is None else verb.upper() if isinstance(verb, str) else ""
        if name not in VERBS:
            raise NotAnEventError("the verb is neither GET nor POST", reason="bad_verb")
        if headers is not None and not _are_headers(headers):
            raise NotAnEventError("headers are not text by text", reason="bad_headers")
        given = read = params
        try:
            if not isinstance(params, str):
                body = _encode(params)
            elif ours and params.isascii():
                body, read = params, {}
            else:
                read = _decode(params)
                as_it_stands = params.isascii() and not _HUGE.search(params)
                given = body = params if as_it_stands else _encode(read)
        except (TypeError, ValueError, RecursionError) as exc:
            # Neither the text nor the cause: both quote the event.
            raise NotAnEventError(
                f"params are not JSON ({type(exc).__name__})", reason="params_not_json"
            ) from None
        if not isinstance(read, dict):
            raise NotAnEventError("params are not an object", reason="params_not_an_object")
        event = cls(url, name, given, None if headers is None else dict(headers), body)
        if given is body and read:
            event.__dict__["_params_read"] = read
        if len(body) > MAX_OBJECT_BYTES and len(event.visitors) <= 1:
            raise NotAnEventError(
                f"one visitor of {len(body):,} bytes; the Event API takes {MAX_OBJECT_BYTES:,}",
                reason="too_large",
            )
        return event

    @classmethod
    def raw(cls, url: Any, params: Any, verb: Any, headers: Any) -> Event:
        """Task arguments that are no event, as they are, only to be kept as a dead letter."""
        return cls(url, verb, params, headers, json.dumps(params))

    @property
    def params(self) -> Any:
        """A dictionary; anything else only in what is no event, see `raw`."""
        given = self.given
        return given if given is not self.body else self._params_read

    @functools.cached_property
    def _params_read(self) -> Any:
        try:
            return _decode(self.body)
        except (ValueError, RecursionError):
            return self.body

    @property
    def visitors(self) -> list[Any]:
        """The visitors, or an empty list where params hold none."""
        found = self._param("visitors")
        return found if isinstance(found, list) else []

    @property
    def wire_params(self) -> Mapping[str, Any] | str:
        """Params as a task argument: the object itself, or its JSON as text.

        Text only where it came as text, as a batch's are (see `message_body`), and where the object
        would not come through kombu's decoder unchanged.
        """
        return self.body if _MARKER in self.body else self.given

    @property
    def message_body(self) -> str:
        """The task message's body: Celery's message protocol 2, plain JSON."""
        return message_body(self.url, self.verb, headers_text(self.headers), self.body)

    @property
    def summary(self) -> str:
        """One line for people, free of personal data.

        For example ``POST logx.optimizely.com, project 111001, 2 events, 734 B``.
        """
        project = identifier(self._param("project_id"))
        return summarise(self.verb, self.url, project, self.event_count, len(self.body))

    @property
    def event_count(self) -> int:
        """How many of the SDK's events (an impression, a conversion) this one holds."""
        return events_in(self._param("visitors"))

    def _param(self, key: str) -> Any:
        return self.params.get(key) if isinstance(self.params, dict) else None

    def __repr__(self) -> str:
        return f"<Event {self.summary}>"


def events_in(visitors: Any) -> int:
    """How many of the SDK's events these visitors hold; 0 where they are none."""
    # In plain loops: this is part of what a dispatch costs.
    count = 0
    for visitor in visitors if isinstance(visitors, list) else ():
        snapshots = visitor.get("snapshots") if isinstance(visitor, dict) else None
        for snapshot in snapshots if isinstance(snapshots, list) else ():
            events = snapshot.get("events") if isinstance(snapshot, dict) else None
            if isinstance(events, list):
                count += len(events)
    return count


def message_body(
    url: str, verb: str, headers: str, body: str, *, params_as_text: bool = False
) -> str:
    """The deliver task's message body; ``headers`` and ``body`` are JSON texts."""
    params = json.dumps(body) if params_as_text or _MARKER in body else body
    return (
        f'[[{json.dumps(url)}, "{verb}", {params}], {{"headers": {headers}}}, '
        '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    )


def headers_text(headers: Mapping[str, str] | None) -> str:
    """Headers as JSON; the SDK gives every event the same ones, so this is a lookup."""
    return "null" if headers is None else _headers_text(tuple(headers.items()))


@functools.lru_cache(maxsize=64)
def _headers_text(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items))


def summarise(verb: str, url: object, project: str, count: int, size: int) -> str:
    """`Event.summary`, by its parts; ``size`` is in bytes."""
    if size < 1000:
        amount = f"{size} B"
    else:
        amount = f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
    noun = "event" if count == 1 else "events"
    known = verb if verb in VERBS else "?"
    return f"{known} {_host(url)}, project {project}, {count} {noun}, {amount}"


def _are_headers(headers: object) -> bool:
    if not isinstance(headers, (dict, Mapping)):  # dict first: the look at an ABC costs more
        return False
    for name, value in headers.items():  # noqa: SIM110 - half the time of all()
        if not (isinstance(name, str) and isinstance(value, str)):
            return False
    return True


def identifier(value: object) -> str:
    """A project id as text; anything that does not look like one might be personal data."""
    text = str(value) if isinstance(value, (str, int)) else ""
    return text if text.isascii() and text.isalnum() and len(text) <= 32 else "unknown"


def _host(url: object) -> str:
    try:
        host = (urlsplit(url).hostname if isinstance(url, str) else None) or ""
    except ValueError:
        return "unknown"
    return host if _HOST.fullmatch(host) else "unknown"
