"""What a setting may be: one check each, which reads text as the environment gives it.

A check takes a key and a value and returns the value in its proper type, or raises
`SettingsError`, whose message names the key, the value and what is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from os import PathLike
from typing import TypeVar
from urllib.parse import urlsplit

from ..errors import SettingsError
from ..names import US_HOST

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix")

_T = TypeVar("_T")
Check = Callable[[str, object], _T]

_FLAGS = {"true": True, "1": True, "yes": True, "on": True}
_FLAGS |= {"false": False, "0": False, "no": False, "off": False}


def _check(read: Callable[[object], _T | None], allowed: str) -> Check[_T]:
    """Make a check of what reads a value, or answers None, and of words for what it does read."""

    def check(key: str, value: object) -> _T:
        found = read(value)
        if found is None:
            raise SettingsError(f"{key} is {_shown(value)}: {allowed}")
        return found

    return check


def optional(check: Check[_T]) -> Check[_T | None]:
    """Make a check that also takes None, or no text, for "not set"."""
    return lambda key, value: None if value is None or value == "" else check(key, value)


def seconds(least: float, most: float = math.inf) -> Check[float]:
    """Make a check for a duration: a number of seconds, or a timedelta."""
    allowed = f"seconds from {least:g}" + (f" to {most:g}" if most < math.inf else "")
    return _check(lambda value: _number(value, least, most), f"{allowed} are allowed")


def size(least: int, most: float = math.inf) -> Check[int]:
    """Make a check for a whole number within bounds."""
    allowed = f"whole numbers from {least:,}" + (f" to {most:,}" if most < math.inf else "")
    return _check(lambda value: _whole(value, least, most), f"{allowed} are allowed")


def one_of(*words: str) -> Check[str]:
    """Make a check for one of a few words."""
    return _check(
        lambda value: word if (word := _text(value).lower()) in words else None,
        f"{' or '.join(words)} is allowed",
    )


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else _FLAGS.get(_text(value).lower())


def _timeouts(value: object) -> tuple[float, float] | None:
    parts: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    positive = [n for n in map(_number, parts) if n is not None and n > 0]
    if len(positive) != len(parts) or len(positive) not in (1, 2):
        return None
    return positive[0], positive[-1]


def _hosts(value: object) -> tuple[str, ...] | None:
    items: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        return None
    names = tuple(_text(item).lower() for item in items)
    return names if names and all(n and not set(n) & set("/@:\\* ") for n in names) else None


def _web_url(value: object) -> str | None:
    return url if _is_url(url := _text(value), ("http", "https")) else None


flag = _check(_flag, "true or false is allowed")
text = _check(lambda value: _text(value) or None, "a name is allowed")
count = _check(lambda value: _whole(value, 0), "a whole number from 0 is allowed")
timeouts = _check(_timeouts, "seconds above 0 are allowed, one number or (connect, read)")
hosts = _check(_hosts, f"host names without scheme, port or path are allowed, such as {US_HOST!r}")
web_url = optional(_check(_web_url, "an http:// or https:// URL is allowed"))
directory = optional(
    _check(
        lambda value: str(value) if isinstance(value, (str, PathLike)) else None,
        "the path of a directory is allowed",
    )
)


def redis_url(key: str, value: object) -> str | None:
    """A check for the URL of a Redis-protocol server."""
    if value is None or value == "":
        return None
    if _is_url(url := _text(value), REDIS_SCHEMES):
        return url
    # The value stays out of the message: it may hold a password, in any place.
    raise SettingsError(f"{key} is no Redis URL: redis://, rediss:// or unix:// is allowed")


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - read, and so checked
    except ValueError:
        return False
    has_place = bool(parts.hostname) or schemes is REDIS_SCHEMES  # redis:// is the local one
    return parts.scheme in schemes and has_place and not re.search(r"\s", text)


def _number(value: object, least: float = -math.inf, most: float = math.inf) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and least <= number <= most else None


def _whole(value: object, least: float, most: float = math.inf) -> int | None:
    number = _number(value, least, most)
    return int(number) if number is not None and number == int(number) else None


def _shown(value: object) -> str:
    """A refused value, for a message: without the password that a URL in it may hold."""
    return re.sub(r"((?:\w+://)?)[^\s'\"]*@", r"\1***@", repr(value))
