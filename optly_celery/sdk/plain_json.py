"""Values as JSON has them: what people put into event tags, made into numbers, text and lists.

`plain` returns a value of Python's JSON types; what has no JSON form is refused with a reason, and
never guessed at, since a wrong number in an experiment is worse than one that is known to be
missing. What is plain already comes back as the same object; nothing that is given is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from ..errors import NotAnEventError

MAX_DEPTH = 100
"""Levels of nesting; more is taken for a mistake."""

MAX_VALUES = 100_000
"""Values in one tag: a few shared lists can unfold into more than any memory holds."""

# A double ends there, and that is what most readers make of a JSON number.
_LARGEST_EXPONENT = 308
_LARGEST_BITS = 1024
_SCALARS = frozenset({str, bool, type(None)})
_LAZY_TEXT = frozenset(
    {("django.utils.functional", "Promise"), ("flask_babel.speaklater", "LazyString")}
)


def plain(value: Any) -> Any:
    """The JSON form of a value.

    Decimal becomes a number: an integer where it is one, else the nearest double. datetime, date
    and time become ISO 8601; UUID and lazy translations text; Enum its value; bytes the text that
    they are in UTF-8; tuples lists; sets sorted lists; numpy's scalars and arrays what their
    ``tolist`` says. Keys become text as in ``json.dumps``, or by the rules for values.

    Raises:
        NotAnEventError: there is none. ``reason`` is ``not_finite``, ``cycle``, ``too_deep``,
            ``too_large``, ``bytes_not_text``, ``key_twice`` or ``no_json_form``; the message
            names types, and holds no data.
    """
    return value if type(value) is str else _Conversion().of(value)


class _Conversion:
    """One call of `plain`: what it is inside of, and how much it has seen."""

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._seen = 0

    def of(self, value: Any) -> Any:
        self._seen += 1
        if self._seen > MAX_VALUES:
            raise NotAnEventError(f"more than {MAX_VALUES:,} values", reason="too_large")
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            return _whole(value)
        if kind is float:
            return _finite(value)
        if isinstance(value, Enum):  # before str and int, which an Enum may be as well
            return self.of(value.value)
        if isinstance(value, (Mapping, list, tuple, AbstractSet)):
            return self._container(value)
        return self._scalar(value)

    def _container(self, value: Any) -> Any:
        if id(value) in self._inside:
            raise NotAnEventError(f"a {_name(value)} that contains itself", reason="cycle")
        if len(self._inside) >= MAX_DEPTH:
            raise NotAnEventError(f"more than {MAX_DEPTH} levels deep", reason="too_deep")
        self._inside.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value)
            members = [self.of(member) for member in value]
        finally:
            self._inside.discard(id(value))
        if isinstance(value, AbstractSet):
            return _sorted(members)
        if type(value) is list and all(a is b for a, b in zip(value, members, strict=True)):
            return value
        return members

    def _mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        same = type(value) is dict
        for key, member in value.items():
            text, form = self._key(key), self.of(member)
            if text in found:
                raise NotAnEventError("two keys with one JSON form", reason="key_twice")
            same = same and text is key and form is member
            found[text] = form
        return value if same else found  # type: ignore[return-value]

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return key
        form = self.of(key)
        if isinstance(form, (list, dict)):
            raise NotAnEventError(f"a key of type {_name(key)}", reason="no_json_form")
        return form if isinstance(form, str) else json.dumps(form)

    def _scalar(self, value: Any) -> Any:  # noqa: PLR0911 - one return for each kind
        if isinstance(value, str):
            # What only claims to be text, such as a lazy object, is asked for it.
            return str.__str__(value) if issubclass(type(value), str) else str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _text(bytes(value))
        if isinstance(value, (datetime, date, time)):
            if value != value:  # noqa: PLR0124 - pandas' "not a time"
                raise NotAnEventError("a time that is none", reason="not_finite")
            return value.isoformat()
        if isinstance(value, UUID) or _is_lazy_text(value):
            return str(value)
        if isinstance(value, Decimal):
            return _number(value)
        if hasattr(type(value), "dtype") and hasattr(value, "tolist"):
            return self._numpy(value)
        if isinstance(value, Integral):
            return _whole(int(value))
        if isinstance(value, Real):
            return _finite(float(value))
        raise NotAnEventError(f"{_name(value)} has no JSON form", reason="no_json_form")

    def _numpy(self, value: Any) -> Any:
        kind = value.dtype.kind
        if kind == "M" and not value.ndim and value == value:  # noqa: PLR0124 - no "not a time"
            return str(value)  # ``tolist`` would give a bare number of nanoseconds
        if kind in "mMOcV":
            raise NotAnEventError(f"{_name(value)} has no JSON form", reason="no_json_form")
        return self.of(value.tolist())


def _number(value: Decimal) -> int | float:
    if not value.is_finite() or value.adjusted() > _LARGEST_EXPONENT:
        raise NotAnEventError("a Decimal that no JSON number holds", reason="not_finite")
    # Whether it is whole is seen without writing it out, which for 1E-999999 takes a megabyte.
    if value == 0 or (value.adjusted() >= 0 and value == value.to_integral_value()):
        return int(value)
    return _finite(float(value))


def _whole(value: int) -> int:
    if value.bit_length() > _LARGEST_BITS:
        raise NotAnEventError("an integer that no reader of JSON holds", reason="not_finite")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise NotAnEventError("NaN or Infinity, which JSON does not have", reason="not_finite")
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NotAnEventError("bytes that are not UTF-8", reason="bytes_not_text") from None


def _sorted(members: list[Any]) -> list[Any]:
    try:
        return sorted(members)
    except TypeError:  # of several types
        return sorted(members, key=lambda member: (type(member).__name__, json.dumps(member)))


def _is_lazy_text(value: object) -> bool:
    return any((kind.__module__, kind.__name__) in _LAZY_TEXT for kind in type(value).__mro__)


def _name(value: object) -> str:
    return type(value).__qualname__
