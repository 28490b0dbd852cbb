"""One event, as the Optimizely SDK built it, in a form that survives the queue unchanged.

An event's ``body`` is made once, by the call that the SDK's own dispatcher makes
(``json.dumps(params)``), and is what gets POSTed on every attempt: Python's JSON encoder and
decoder keep key order, integers of any size, floats and unicode, so decoding and encoding it
again in a worker gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .errors import NotAnEventError

MAX_OBJECT_BYTES = 3_500_000
"""Largest JSON object that the Event API takes (Event API, "Bundle events and visitors")."""

VERBS = ("GET", "POST")

_MARKER = '"__type__"'  # kombu's JSON decoder turns objects with this key into Python types


@dataclass(frozen=True, repr=False)
class Event:
    """What to send where. Build it with `Event.of`, which refuses what is no event.

    ``body`` is ASCII, so its length is its size in bytes. ``params`` must not be changed.
    """

    url: str
    verb: str
    params: Mapping[str, Any]
    headers: Mapping[str, str] | None
    body: str = field(compare=False)

    @classmethod
    def of(
        cls,
        url: object,
        params: object,
        verb: object = "POST",
        headers: Any = None,
    ) -> Event:
        """Check what was handed over and freeze it.

        ``params`` is a dictionary, or its JSON as text (the form that `wire_params` may choose).

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
        try:
            if isinstance(params, str):
                params = json.loads(params)
            body = json.dumps(params, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as exc:
            # Neither the text nor the cause: both quote the event.
            raise NotAnEventError(
                f"params are not JSON ({type(exc).__name__})", reason="params_not_json"
            ) from None
        if not isinstance(params, dict):
            raise NotAnEventError("params are not an object", reason="params_not_an_object")
        event = cls(url, name, params, headers, body)
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
    def visitors(self) -> list[Any]:
        """The visitors, or an empty list where params hold none."""
        found = self._param("visitors")
        return found if isinstance(found, list) else []

    @property
    def wire_params(self) -> Mapping[str, Any] | str:
        """Params as a task argument: the object itself, or its JSON as text.

        Text only where the object would not come through kombu's decoder unchanged.
        """
        return self.body if _MARKER in self.body else self.params

    @property
    def message_body(self) -> str:
        """The task message's body: Celery's message protocol 2, plain JSON."""
        params = json.dumps(self.body) if _MARKER in self.body else self.body
        return (
            f'[[{json.dumps(self.url)}, "{self.verb}", {params}], '
            f'{{"headers": {json.dumps(self.headers)}}}, '
            '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        )

    @property
    def summary(self) -> str:
        """One line for people, free of personal data.

        For example ``POST logx.optimizely.com, project 111001, 2 events, 734 B``.
        """
        count = sum(map(_count_events, self.visitors))
        noun = "event" if count == 1 else "events"
        project = _identifier(self._param("project_id"))
        verb = self.verb if self.verb in VERBS else "?"
        return f"{verb} {_host(self.url)}, project {project}, {count} {noun}, {self.size}"

    @property
    def size(self) -> str:
        """Size of the body, for people: ``734 B``, ``12.3 kB``, ``3.4 MB``."""
        count = len(self.body)
        if count < 1000:
            return f"{count} B"
        return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"

    def _param(self, key: str) -> Any:
        return self.params.get(key) if isinstance(self.params, Mapping) else None

    def __repr__(self) -> str:
        return f"<Event {self.summary}>"


def _are_headers(headers: object) -> bool:
    return isinstance(headers, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) for k, v in headers.items()
    )


def _count_events(visitor: object) -> int:
    snapshots = visitor.get("snapshots") if isinstance(visitor, dict) else None
    if not isinstance(snapshots, list):
        return 0
    events = (s.get("events") for s in snapshots if isinstance(s, dict))
    return sum(len(e) for e in events if isinstance(e, list))


def _identifier(value: object) -> str:
    """A project id as text; anything that does not look like one might be personal data."""
    text = str(value) if isinstance(value, (str, int)) else ""
    return text if text.isascii() and text.isalnum() and len(text) <= 32 else "unknown"


def _host(url: object) -> str:
    try:
        return (urlsplit(url).hostname if isinstance(url, str) else None) or "unknown"
    except ValueError:
        return "unknown"
