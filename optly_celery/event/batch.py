"""Merging events that share a context, and taking events with several visitors apart.

The context (everything in params but ``visitors``) is copied, never changed, and visitors keep
their order; ``visitors`` keeps its place among the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .event import Event, events_in, headers_text, identifier, message_body, summarise

_PLAIN = frozenset({str, int, float, bool, type(None)})
_VISITORS = '"visitors": ['
_MOST_KNOWN = 100

_known: dict[tuple[str, str, str], Context] = {}  # by URL, headers and what stands before visitors


def split(event: Event) -> tuple[Event, Event]:
    """The event's two halves, each with the whole context and half of the visitors, in order.

    Raises:
        ValueError: fewer than two visitors.
    """
    visitors = event.visitors
    if len(visitors) < 2:
        raise ValueError("an event with fewer than two visitors cannot be split")
    middle = len(visitors) // 2
    return _with_visitors(event, visitors[:middle]), _with_visitors(event, visitors[middle:])


def join(parts: Sequence[Event]) -> Event:
    """Put parts that came of one event together again, in the given order."""
    if len(parts) == 1:
        return parts[0]
    return _with_visitors(parts[0], [v for part in parts for v in part.visitors])


def _with_visitors(event: Event, visitors: list[object]) -> Event:
    # Not Event.of: a part of an event is one, and its size is the endpoint's to judge.
    params = {**event.params, "visitors": visitors}
    return Event(event.url, event.verb, params, event.headers, json.dumps(params))


class Context(NamedTuple):
    """Everything of an event but its visitors, as text; ``head`` and ``tail`` surround them.

    Events with equal contexts may share a batch, and no others. Text settles what equality means:
    ``true`` is not ``1``, absent is not null, and keys in another order are another context. An
    event that cannot share one, such as a GET, has an empty context and is its own "visitors".
    """

    url: str
    verb: str
    headers: str
    head: str
    tail: str
    project: str
    mergeable: bool


class Part(NamedTuple):
    """An event taken apart: its context, the text of its visitors, how many events they hold.

    ``at`` is when the event was enqueued, in seconds since the epoch.
    """

    context: Context
    visitors: str
    events: int
    at: float

    def __repr__(self) -> str:
        return f"<Part {self.events} events, {len(self.visitors)} B>"


@dataclass(frozen=True, repr=False)
class Batch:
    """One event made of several with one context, as text, ready to be published."""

    context: Context
    body: str
    count: int
    enqueued_at: float

    @property
    def message_body(self) -> str:
        """As `Event.message_body`; params as text, which spares Celery reading them twice."""
        context, as_text = self.context, self.count > 1
        return message_body(
            context.url, context.verb, context.headers, self.body, params_as_text=as_text
        )

    @property
    def summary(self) -> str:
        context = self.context
        return summarise(context.verb, context.url, context.project, self.count, len(self.body))

    def __repr__(self) -> str:
        return f"<Batch {self.summary}>"


def take_apart(event: Event, at: float) -> Part:
    """The event's context and visitors; joining them again gives its body, byte for byte."""
    params = event.given
    if event.verb == "POST" and type(params) is dict and _is_usual(params):
        # As the SDK builds it: visitors last. What stands before them is nearly always known.
        start = event.body.find(_VISITORS) + len(_VISITORS)
        key = event.url, headers_text(event.headers), event.body[:start]
        context = _known.get(key) or _learn(event, key)
        if context is not None:
            return Part(context, event.body[start:-2], events_in(params["visitors"]), at)
    return _take_apart_slowly(event, at)


def _is_usual(params: dict[str, Any]) -> bool:
    visitors = params.get("visitors")
    return bool(visitors) and type(visitors) is list and next(reversed(params)) == "visitors"


def _learn(event: Event, key: tuple[str, str, str]) -> Context | None:
    if not _PLAIN.issuperset(map(type, list(event.params.values())[:-1])):
        return None
    # Nothing before them can hold the same key, and inside a string its quotes would be escaped.
    # So it is with all events whose text begins alike, as there is one way to read that.
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    url, headers, head = key
    project = identifier(event.params.get("project_id"))
    known = _known[key] = Context(url, "POST", headers, head, "]}", project, mergeable=True)
    return known


def _take_apart_slowly(event: Event, at: float) -> Part:
    project = identifier(event.params.get("project_id"))
    headers = headers_text(event.headers)
    count = event.event_count
    if event.verb != "POST" or not event.visitors:
        context = Context(event.url, event.verb, headers, "", "", project, mergeable=False)
        return Part(context, event.body, count, at)
    keys = list(event.params)
    place = keys.index("visitors")
    before = json.dumps({k: event.params[k] for k in keys[:place]})[1:-1]
    after = json.dumps({k: event.params[k] for k in keys[place + 1 :]})[1:-1]
    head = "{" + (before + ", " if before else "") + _VISITORS
    tail = "]" + (", " + after if after else "") + "}"
    context = Context(event.url, event.verb, headers, head, tail, project, mergeable=True)
    return Part(context, json.dumps(event.visitors)[1:-1], count, at)


def put_together(part: Part) -> Event:
    """The event that was taken apart."""
    context = part.context
    body = context.head + part.visitors + context.tail
    headers = json.loads(context.headers)
    return Event(context.url, context.verb, json.loads(body), headers, body)


def merge(parts: Iterable[Part], *, max_events: int, max_bytes: int) -> Iterator[Batch]:
    """Batches of the parts, in order, none over the limits unless one part alone is.

    Only parts with equal contexts share a batch, and only where those say that they may.
    """
    waiting: dict[Context, list[Part]] = {}
    sizes: dict[Context, tuple[int, int]] = {}
    for part in parts:
        context = part.context
        if not context.mergeable:
            yield _batch([part])
            continue
        size, count = sizes.get(context, (len(context.head) + len(context.tail), 0))
        grown, total = size + len(part.visitors) + 2, count + part.events
        if context in waiting and (grown > max_bytes or total > max_events):
            yield _batch(waiting.pop(context))
            grown = len(context.head) + len(context.tail) + len(part.visitors) + 2
            total = part.events
        waiting.setdefault(context, []).append(part)
        sizes[context] = grown, total
    yield from map(_batch, waiting.values())


def _batch(parts: list[Part]) -> Batch:
    context = parts[0].context
    visitors = ", ".join(part.visitors for part in parts)
    body = context.head + visitors + context.tail
    count, oldest = sum(part.events for part in parts), min(part.at for part in parts)
    return Batch(context, body, count, oldest)
