"""Decisions and conversions, as they stand in an event's params. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..event.payload import dicts, walk

ACTIVATED = "campaign_activated"
"""The key under which the SDK sends an impression."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One impression: which variation a user got.

    ``flag_key`` is empty for `Optimizely.activate`, which knows experiments only: their key is
    the ``rule_key``. ``attributes`` are those that the datafile knows; the SDK leaves out others.
    """

    flag_key: str
    rule_key: str
    rule_type: str
    variation_key: str
    enabled: bool | None
    user_id: str
    attributes: Mapping[str, Any]
    uuid: str = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One tracked event; ``revenue`` and ``value`` are what the SDK has read from the tags."""

    event_key: str
    revenue: int | None
    value: float | None
    tags: Mapping[str, Any]
    user_id: str
    attributes: Mapping[str, Any]
    uuid: str = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def read(params: Any) -> Iterator[Decision | Conversion]:
    """What an event's params hold, in order. What has another shape is passed over."""
    for visitor, snapshot, events in walk(params):
        common: dict[str, Any] = {
            "user_id": visitor.get("visitor_id", ""),
            "attributes": {a.get("key"): a.get("value") for a in dicts(visitor, "attributes")},
        }
        impressions = [e for e in events if e.get("key") == ACTIVATED]
        for number, decision in enumerate(dicts(snapshot, "decisions")):
            event = impressions[min(number, len(impressions) - 1)] if impressions else {}
            told = _dict(decision, "metadata")
            yield Decision(
                flag_key=told.get("flag_key") or "",
                rule_key=told.get("rule_key") or "",
                rule_type=told.get("rule_type") or "",
                variation_key=told.get("variation_key") or "",
                enabled=told.get("enabled"),
                uuid=event.get("uuid", ""),
                raw=decision,
                **common,
            )
        for event in events:
            if event.get("key") != ACTIVATED:
                yield Conversion(
                    event_key=event.get("key", ""),
                    revenue=event.get("revenue"),
                    value=event.get("value"),
                    tags=_dict(event, "tags"),
                    uuid=event.get("uuid", ""),
                    raw=event,
                    **common,
                )


def describe(what: Decision | Conversion) -> str:
    """One line for a failed assertion: every field that says something."""
    shown = {f.name: getattr(what, f.name) for f in fields(what) if f.repr}
    told = " ".join(f"{name}={v!r}" for name, v in shown.items() if v not in ("", None, {}))
    return f"{type(what).__name__.lower():<10} {told}"


def _dict(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = of.get(key)
    return value if isinstance(value, dict) else {}
