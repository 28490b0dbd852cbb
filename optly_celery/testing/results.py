"""What the events of an experiment say. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from ..event.payload import uuids_of
from .records import Decision, read


class Results:
    """Visitors and conversions by variation. Remembers every visitor: for demonstrations."""

    def __init__(self) -> None:
        self._uuids: set[str] = set()
        self._refused = 0
        self._chosen: dict[str, dict[str, str]] = defaultdict(dict)  # flag, visitor, variation
        self._converted: set[str] = set()

    def take(self, params: Any) -> None:
        """Count what was taken; again or not, as with the Event API an event counts once."""
        self._uuids.update(uuids_of(params))
        for found in read(params):
            # As text: a collector that is not strict takes anything for an id or a key.
            if isinstance(found, Decision):
                chosen = self._chosen[str(found.flag_key)]
                chosen[str(found.user_id)] = str(found.variation_key)
            else:
                self._converted.add(str(found.user_id))

    def refuse(self) -> None:
        """Count a request that was answered 400."""
        self._refused += 1

    def as_dict(self) -> dict[str, Any]:
        """The results, for a JSON document."""
        flags = {}
        for flag, chosen in self._chosen.items():
            visitors = Counter(chosen.values())
            converted = Counter(v for who, v in chosen.items() if who in self._converted)
            flags[flag] = {
                variation: {"visitors": count, "converted": converted[variation]}
                for variation, count in sorted(visitors.items())
            }
        return {"events": len(self._uuids), "refused": self._refused, "flags": flags}
