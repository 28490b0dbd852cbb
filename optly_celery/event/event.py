"""One event, as the Optimizely SDK built it, in a form that survives the queue unchanged.

An event's ``body`` is made once, by the call that the SDK's own dispatcher makes
(``json.dumps(params)``), and is what gets POSTed on every attempt: Python's JSON encoder and
decoder keep key order, integers of any size, floats and unicode, so decoding and encoding it
again in a worker gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import NotAnEventError
from . import wire
from .context import Context, identifier, take_apart
from .payload import count_events
from .summary import VERBS, summarise

MAX_OBJECT_BYTES = 3_500_000
"""Largest JSON object that the Event API takes (Event API, "Bundle events and visitors")."""

_encode = json.JSONEncoder(
    allow_nan=False, check_circular=False
).encode  # json.dumps would make one for each call


def _no_constant(name: str) -> None:
    raise ValueError(name)


_decode = json.JSONDecoder(parse_constant=_no_constant).decode  # NaN is no JSON

# What may be a number that Python reads as infinity; a uuid is none.
_HUGE = re.compile(r"[\s,:\[]-?\d[\d.]*[eE]\+?\d{3}")

_UNREAD: Any = object()


class Event:
    """What to send where: a URL, a verb, headers, and the text of its params, the ``body``.

    Its context, its visitors and their number are known where it was made of them, and otherwise
    read from the text when somebody asks, so that nothing is parsed on the usual way. Build one
    with `of`, which refuses what is no event, or with `whole`. Nothing of it must be changed.

    ``body`` is ASCII, so its length is its size in bytes. ``enqueued_at``, in seconds since the
    epoch, is known of what comes from an outbox.
    """

    # What is not known stays as it is here, which makes an event in half the time.
    as_text = False
    enqueued_at: float | None = None
    _params: Any = _UNREAD
    _written = False
    _context: Context | None = None
    _visitors_text = ""
    _count = -1
    _summary: str | None = None

    def __init__(self, url: Any, verb: Any, headers: Any, body: str) -> None:
        self.url: str = url
        self.verb: str = verb
        self.body = body
        self._headers = headers

    @classmethod
    def of(
        cls,
        url: object,
        params: object,
        verb: object = "POST",
        headers: Any = None,
        *,
        ours: bool = False,
        summary: str | None = None,
    ) -> Event:
        """Check what was handed over and freeze it.

        ``params`` is a dictionary, or its JSON as text, which then is the body as it stands. Text
        that is ``ours``, from a message of this package, was checked when it was written: it is
        read when somebody asks for a part of it, which is a third of what a batch costs a worker.
        So it is with the ``summary`` that came with it.

        Raises:
            NotAnEventError: with the reason; the message holds no event data.
        """
        if not isinstance(url, str) or not url.strip():
            raise NotAnEventError("the event has no url", reason="no_url")
        name = "POST" if verb is None else verb.upper() if isinstance(verb, str) else ""
        if name not in VERBS:
            raise NotAnEventError("the verb is neither GET nor POST", reason="bad_verb")
        if headers is not None and not wire.are_headers(headers):
            raise NotAnEventError("headers are not text by text", reason="bad_headers")
        try:
            body, read = _texts(params, ours=ours)
        except (TypeError, ValueError, RecursionError) as exc:
            # Neither the text nor the cause: both quote the event.
            raise NotAnEventError(
                f"params are not JSON ({type(exc).__name__})", reason="params_not_json"
            ) from None
        if read is not _UNREAD and not isinstance(read, dict):
            raise NotAnEventError("params are not an object", reason="params_not_an_object")
        event = cls(url, name, None if headers is None else dict(headers), body)
        event._params = read
        if isinstance(params, str):
            event.as_text, event._summary = True, summary
        else:
            event._written = True
        if len(body) > MAX_OBJECT_BYTES and len(event.visitors) <= 1:
            raise NotAnEventError(
                f"one visitor of {len(body):,} bytes; the Event API takes {MAX_OBJECT_BYTES:,}",
                reason="too_large",
            )
        return event

    @classmethod
    def whole(
        cls,
        context: Context,
        visitors_text: str,
        count: int,
        *,
        enqueued_at: float | None = None,
        as_text: bool = False,
    ) -> Event:
        """The event of a context and the text of its visitors, which was checked before."""
        url, verb, _, head, tail, _, _ = context
        event = cls(url, verb, _UNREAD, head + visitors_text + tail)
        event._context, event._visitors_text, event._count = context, visitors_text, count
        if enqueued_at is not None:
            event.enqueued_at = enqueued_at
        if as_text:
            event.as_text = True
        return event

    @classmethod
    def raw(cls, url: Any, params: Any, verb: Any, headers: Any) -> Event:
        """Task arguments as they are, unchecked: a part of an event, or what is none."""
        event = cls(url, verb, headers, json.dumps(params))
        event._params = params
        return event

    @property
    def headers(self) -> Mapping[str, str] | None:
        """Headers by name; something else only in what is no event, see `raw`."""
        if self._headers is _UNREAD and self._context is not None:
            self._headers = wire.headers_of(self._context.headers)
        return self._headers  # type: ignore[no-any-return]

    @property
    def params(self) -> Any:
        """A dictionary; anything else only in what is no event, see `raw`."""
        if self._params is _UNREAD:
            try:
                self._params = _decode(self.body)
            except (ValueError, RecursionError):
                self._params = self.body
        return self._params

    @property
    def visitors(self) -> list[Any]:
        """The visitors, or an empty list where params hold none."""
        found = self._param("visitors")
        return found if isinstance(found, list) else []

    @property
    def context(self) -> Context:
        """Everything but the visitors, by which it is seen what may share a batch."""
        if self._context is None:
            params = self.params
            self._context, self._visitors_text = take_apart(
                self.url, self.verb, wire.headers_text(self._headers), self.body,
                params if isinstance(params, dict) else {}, written=self._written,
            )  # fmt: skip
        return self._context

    @property
    def visitors_text(self) -> str:
        """The visitors' own text, between the context's head and tail."""
        if self._context is None:
            self.context  # noqa: B018 - read, and so is this
        return self._visitors_text

    @property
    def event_count(self) -> int:
        """How many of the SDK's events (an impression, a conversion) this one holds."""
        if self._count < 0:
            self._count = count_events(self._param("visitors"))
        return self._count

    @property
    def wire_params(self) -> Mapping[str, Any] | str:
        """Params as a task argument: the object itself, or its JSON as text.

        Text only where it came as text, as a batch's are, and where the object would not come
        through kombu's decoder unchanged.
        """
        return self.body if self.as_text or wire.must_be_text(self.body) else self.params

    @property
    def message_body(self) -> str:
        """The task message's body; see `wire.message_body`. A single event travels as an object."""
        context = self._context
        headers = wire.headers_text(self._headers) if context is None else context.headers
        as_text = self.as_text and self.event_count > 1
        return wire.message_body(self.url, self.verb, headers, self.body, as_text=as_text)

    @property
    def summary(self) -> str:
        """One line for people, free of personal data; see `summarise`."""
        if self._summary is None:
            context = self._context
            project = identifier(self._param("project_id")) if context is None else context.project
            size = len(self.body)
            self._summary = summarise(self.verb, self.url, project, self.event_count, size)
        return self._summary

    def _param(self, key: str) -> Any:
        return self.params.get(key) if isinstance(self.params, dict) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.url, self.verb, self.body))

    def _identity(self) -> tuple[Any, ...]:
        return self.url, self.verb, self.headers, self.body

    def __repr__(self) -> str:
        return f"<Event {self.summary}>"


def _texts(params: object, *, ours: bool) -> tuple[str, Any]:
    """The body, and what it says, if that was to be read."""
    if not isinstance(params, str):
        return _encode(params), params
    if ours and params.isascii():
        return params, _UNREAD
    read = _decode(params)
    return params if params.isascii() and not _HUGE.search(params) else _encode(read), read
