"""Events with several visitors: taking them apart and putting the rest together.

The context (everything in params but ``visitors``) is copied, never changed, and visitors keep
their order; ``visitors`` keeps its place among the keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

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


def join(parts: Sequence[Event]) -> Event:
    """Put parts that came of one event together again, in the given order."""
    if len(parts) == 1:
        return parts[0]
    return _with_visitors(parts[0], [v for part in parts for v in part.visitors])


def _with_visitors(event: Event, visitors: list[object]) -> Event:
    # Not Event.of: a part of an event is one, and its size is the endpoint's to judge.
    params = {**event.params, "visitors": visitors}
    return Event(event.url, event.verb, params, event.headers, json.dumps(params))
