"""The SDK's events as text, without its detour.

The SDK turns an event into JSON, reads that back, and a dispatcher turns it into JSON again: more
than half of what `track` costs. Here the SDK's visitor is written once. Whether that gives the
same bytes is not assumed but seen: for each context and type of event, the first one takes both
ways, and where they differ the detour is taken from then on.
"""

from __future__ import annotations

import json
from typing import Any

from optimizely.event.event_factory import EventFactory
from optimizely.event.user_event import UserEvent

from ..errors import NotAnEventError
from ..event.context import Context
from ..event.event import MAX_OBJECT_BYTES, Event

_SCALARS = frozenset({str, int, float, bool})
_TEXT = frozenset({str})
_UNKNOWN = object()
_KEPT = 100  # contexts; a new datafile makes a new one

# What the SDK leaves out of its JSON where it is None.
_LEFT_OUT = frozenset({"revenue", "value", "tags", "decisions"})


class VisitorText:
    """Takes the events that it can; the others are left to the SDK."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._contexts: dict[tuple[object, ...], Any] = {}

    def event_of(self, user_event: UserEvent) -> Event | None:
        """The event, written once and never read, or None where only the SDK's own way will do."""
        if not _is_flat(user_event):
            return None
        key = (type(user_event), *vars(user_event.event_context).values())
        try:
            context = self._contexts.get(key, _UNKNOWN)
            if context is _UNKNOWN:
                context = self._learn(key, user_event)
            if context is None:
                return None
            visitor = _encode(_visitor_of(user_event, self._logger))
        except (TypeError, ValueError, NotAnEventError):  # a NaN, for instance
            return None
        if len(context.head) + len(visitor) + len(context.tail) > MAX_OBJECT_BYTES:
            return None
        return Event.whole(context, visitor, 1)

    def _learn(self, key: tuple[object, ...], user_event: UserEvent) -> Context | None:
        if len(self._contexts) >= _KEPT:
            self._contexts.clear()
        log_event = EventFactory.create_log_event(user_event, self._logger)
        if log_event is None:
            return None
        event = Event.of(log_event.url, log_event.params, log_event.http_verb, log_event.headers)
        same = event.visitors_text == _encode(_visitor_of(user_event, self._logger))
        context = event.context if same and event.context.mergeable else None
        self._contexts[key] = context
        return context


def _is_flat(user_event: Any) -> bool:
    """Whether all that the app gave is plain already; None is not, as the SDK treats it apart."""
    tags = getattr(user_event, "event_tags", None)
    return (
        type(user_event.user_id) is str
        and (
            not tags
            or (_SCALARS.issuperset(map(type, tags.values())) and _TEXT.issuperset(map(type, tags)))
        )
        and all(type(attribute.value) in _SCALARS for attribute in user_event.visitor_attributes)
    )


def _fields(part: Any) -> dict[str, Any]:
    if type(part).__module__ != "optimizely.event.payload":
        raise TypeError
    fields: dict[str, Any] = vars(part)
    if None in fields.values():
        return {k: v for k, v in fields.items() if v is not None or k not in _LEFT_OUT}
    return fields


def _visitor_of(user_event: UserEvent, logger: Any) -> Any:
    create = getattr(EventFactory, "_create_visitor", None)
    if create is None:
        raise TypeError("not in this version of the SDK")
    return create(user_event, logger)


_encode = json.JSONEncoder(allow_nan=False, check_circular=False, default=_fields).encode
