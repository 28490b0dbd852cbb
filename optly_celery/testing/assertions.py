"""Looking through what was recorded, and failing with all of it in the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .records import Conversion, Decision, describe

_Found = TypeVar("_Found", Decision, Conversion)


class Recorded:
    """Decisions and conversions, in the order in which they came."""

    @property
    def events(self) -> list[Decision | Conversion]:
        """Everything, oldest first."""
        raise NotImplementedError

    @property
    def trouble(self) -> list[str]:
        """What else a failed assertion should tell, a line each."""
        return []

    def decisions(self, flag_key: str | None = None, **fields: Any) -> list[Decision]:
        """The decisions with these fields, all where none is given.

        The ``attributes`` given are looked for among those of the decision.
        """
        return [e for e in self._all(Decision) if _has(e, {"flag_key": flag_key, **fields})]

    def conversions(self, event_key: str | None = None, **fields: Any) -> list[Conversion]:
        """The conversions with these fields; ``tags`` and ``attributes`` as in `decisions`."""
        return [e for e in self._all(Conversion) if _has(e, {"event_key": event_key, **fields})]

    def assert_decided(
        self,
        flag_key: str,
        *,
        variation_key: str | None = None,
        rule_key: str | None = None,
        enabled: bool | None = None,
        user_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> Decision:
        """Fail unless this was decided, as often as ``times`` says or at least once.

        Returns the last such decision.
        """
        __tracebackhide__ = True
        wanted = {
            "flag_key": flag_key,
            "variation_key": variation_key,
            "rule_key": rule_key,
            "enabled": enabled,
            "user_id": user_id,
            "attributes": attributes,
        }
        return self._assert_found("decision", self._all(Decision), wanted, times)

    def assert_tracked(
        self,
        event_key: str,
        *,
        revenue: int | None = None,
        value: float | None = None,
        tags: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> Conversion:
        """Fail unless this was tracked, as often as ``times`` says or at least once.

        Returns the last such conversion.
        """
        __tracebackhide__ = True
        wanted = {
            "event_key": event_key,
            "revenue": revenue,
            "value": value,
            "tags": tags,
            "user_id": user_id,
            "attributes": attributes,
        }
        return self._assert_found("conversion", self._all(Conversion), wanted, times)

    def assert_not_decided(self, flag_key: str | None = None, **fields: Any) -> None:
        """Fail if a decision has these fields; without any, if there is one at all."""
        __tracebackhide__ = True
        wanted = {"flag_key": flag_key, **fields}
        self._assert_none("decision", self.decisions(flag_key, **fields), wanted)

    def assert_not_tracked(self, event_key: str | None = None, **fields: Any) -> None:
        """Fail if a conversion has these fields; without any, if there is one at all."""
        __tracebackhide__ = True
        wanted = {"event_key": event_key, **fields}
        self._assert_none("conversion", self.conversions(event_key, **fields), wanted)

    def assert_nothing(self) -> None:
        """Fail if anything was recorded, or went wrong."""
        __tracebackhide__ = True
        if self.events or self.trouble:
            raise AssertionError(f"nothing was to be sent\n{self._account()}")

    def _all(self, kind: type[_Found]) -> list[_Found]:
        return [event for event in self.events if isinstance(event, kind)]

    def _assert_found(
        self, noun: str, among: Sequence[_Found], wanted: Mapping[str, Any], times: int | None
    ) -> _Found:
        __tracebackhide__ = True
        if times == 0:
            raise ValueError(f"for no {noun} at all there is assert_not_{_VERBS[noun]}")
        found = [event for event in among if _has(event, wanted)]
        if not found:
            raise AssertionError(f"no {noun} with {_told(wanted)}\n{self._account()}")
        if times is not None and len(found) != times:
            raise AssertionError(
                f"{len(found)} instead of {times}: {noun} with {_told(wanted)}\n{self._account()}"
            )
        return found[-1]

    def _assert_none(
        self, noun: str, found: Sequence[Decision | Conversion], wanted: Mapping[str, Any]
    ) -> None:
        __tracebackhide__ = True
        if found:
            told = f" with {_told(wanted)}" if _told(wanted) else ""
            raise AssertionError(f"{len(found)} instead of none: {noun}{told}\n{self._account()}")

    def _account(self) -> str:
        events = self.events
        lines = [f"recorded: {len(events)}" if events else "recorded: nothing at all"]
        lines += [f"  {describe(event)}" for event in events]
        return "\n".join([*lines, *self.trouble])


_VERBS = {"decision": "decided", "conversion": "tracked"}


def _has(event: Decision | Conversion, wanted: Mapping[str, Any]) -> bool:
    return all(_matches(event, name, value) for name, value in wanted.items() if value is not None)


def _matches(event: Decision | Conversion, name: str, wanted: Any) -> bool:
    if not hasattr(event, name):
        raise TypeError(f"a {type(event).__name__.lower()} has no {name}")
    there = getattr(event, name)
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return all(key in there and there[key] == value for key, value in wanted.items())
    return bool(there == wanted)


def _told(wanted: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
