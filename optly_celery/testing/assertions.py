"""Looking through what was recorded, and failing with all of it in the message."""

from __future__ import annotations

from collections.abc import Mapping
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
        return self._with(Decision, flag_key=flag_key, **fields)

    def conversions(self, event_key: str | None = None, **fields: Any) -> list[Conversion]:
        """The conversions with these fields; ``tags`` and ``attributes`` as in `decisions`."""
        return self._with(Conversion, event_key=event_key, **fields)

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
        return self._assert_found(
            Decision,
            times,
            flag_key=flag_key,
            variation_key=variation_key,
            rule_key=rule_key,
            enabled=enabled,
            user_id=user_id,
            attributes=attributes,
        )

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
        return self._assert_found(
            Conversion,
            times,
            event_key=event_key,
            revenue=revenue,
            value=value,
            tags=tags,
            user_id=user_id,
            attributes=attributes,
        )

    def assert_not_decided(self, flag_key: str | None = None, **fields: Any) -> None:
        """Fail if a decision has these fields; without any, if there is one at all."""
        __tracebackhide__ = True
        self._assert_none(Decision, flag_key=flag_key, **fields)

    def assert_not_tracked(self, event_key: str | None = None, **fields: Any) -> None:
        """Fail if a conversion has these fields; without any, if there is one at all."""
        __tracebackhide__ = True
        self._assert_none(Conversion, event_key=event_key, **fields)

    def assert_nothing(self) -> None:
        """Fail if anything was recorded, or went wrong."""
        __tracebackhide__ = True
        if self.events or self.trouble:
            raise AssertionError(f"nothing was to be sent\n{self._account()}")

    def _with(self, kind: type[_Found], **wanted: Any) -> list[_Found]:
        return [e for e in self.events if isinstance(e, kind) and _has(e, wanted)]

    def _assert_found(self, kind: type[_Found], times: int | None, **wanted: Any) -> _Found:
        __tracebackhide__ = True
        if times == 0:
            verb = "decided" if kind is Decision else "tracked"
            raise ValueError(f"for no {_told(kind, {})} at all there is assert_not_{verb}")
        found = self._with(kind, **wanted)
        if not found:
            raise AssertionError(f"no {_told(kind, wanted)}\n{self._account()}")
        if times is not None and len(found) != times:
            raise AssertionError(
                f"{len(found)} instead of {times}: {_told(kind, wanted)}\n{self._account()}"
            )
        return found[-1]

    def _assert_none(self, kind: type[_Found], **wanted: Any) -> None:
        __tracebackhide__ = True
        if found := self._with(kind, **wanted):
            raise AssertionError(
                f"{len(found)} instead of none: {_told(kind, wanted)}\n{self._account()}"
            )

    def _account(self) -> str:
        events = self.events
        lines = [f"recorded: {len(events)}" if events else "recorded: nothing at all"]
        lines += [f"  {describe(event)}" for event in events]
        return "\n".join([*lines, *self.trouble])


def _has(event: Decision | Conversion, wanted: Mapping[str, Any]) -> bool:
    return all(_matches(event, name, value) for name, value in wanted.items() if value is not None)


def _matches(event: Decision | Conversion, name: str, wanted: Any) -> bool:
    if not hasattr(event, name):
        raise TypeError(f"a {type(event).__name__.lower()} has no {name}")
    there = getattr(event, name)
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return all(key in there and there[key] == value for key, value in wanted.items())
    return bool(there == wanted)


def _told(kind: type[_Found], wanted: Mapping[str, Any]) -> str:
    told = " ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
    return kind.__name__.lower() + (f" with {told}" if told else "")
