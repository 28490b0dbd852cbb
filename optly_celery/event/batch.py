"""Merging events that share a context, and taking events with several visitors apart.

The context (everything in params but ``visitors``) is copied, never changed, and visitors keep
their order; ``visitors`` keeps its place among the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .context import Context
from .event import Event


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


def cut(event: Event, sizes: Sequence[int]) -> list[Event]:
    """The event in parts of so many visitors each; whole where the sizes are not those of it.

    They may have come from anywhere.
    """
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        return [event]  # before anything is read of it
    visitors = event.visitors
    if sum(sizes) != len(visitors):
        return [event]
    parts, start = [], 0
    for size in sizes:
        parts.append(_with_visitors(event, visitors[start : start + size]))
        start += size
    return parts


def join(parts: Sequence[Event]) -> Event:
    """Put parts that came of one event together again, in the given order."""
    if len(parts) == 1:
        return parts[0]
    return _with_visitors(parts[0], [v for part in parts for v in part.visitors])


def merge(events: Iterable[Event], *, max_events: int, max_bytes: int) -> Iterator[Event]:
    """Events of the events, in order, none over the limits unless one alone is.

    Only those with equal contexts are made into one, and only where these say that they may be.
    It was enqueued when the first of them was.
    """
    waiting: dict[Context, list[Event]] = {}
    sizes: dict[Context, tuple[int, int]] = {}
    for event in events:
        context = event.context
        if not context.mergeable:
            yield _merged([event])
            continue
        size, count = sizes.get(context, (len(context.head) + len(context.tail), 0))
        length, more = len(event.visitors_text), event.event_count
        grown, total = size + length + 2, count + more
        if context in waiting and (grown > max_bytes or total > max_events):
            yield _merged(waiting.pop(context))
            grown, total = len(context.head) + len(context.tail) + length + 2, more
        waiting.setdefault(context, []).append(event)
        sizes[context] = grown, total
    yield from map(_merged, waiting.values())


def _merged(events: list[Event]) -> Event:
    return Event.whole(
        events[0].context,
        ", ".join(event.visitors_text for event in events),
        sum(event.event_count for event in events),
        enqueued_at=min((e.enqueued_at for e in events if e.enqueued_at is not None), default=None),
        as_text=True,
    )


def _with_visitors(event: Event, visitors: list[object]) -> Event:
    # Not Event.of: a part of an event is one, and its size is the endpoint's to judge.
    return Event.raw(event.url, {**event.params, "visitors": visitors}, event.verb, event.headers)
