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
from urllib.parse import urlsplit

from ..errors import SettingsError
from ..names import US_HOST

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix")


def flag(key: str, value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise SettingsError(f"{key} is {_shown(value)}: true or false is allowed")


def text(key: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise SettingsError(f"{key} is {_shown(value)}: a name is allowed")


def seconds(least: float, most: float = math.inf) -> Callable[[str, object], float]:
    """Make a check for a duration: a number of seconds, or a timedelta."""
    allowed = f"seconds from {least:g}" + (f" to {most:g}" if most < math.inf else "")

    def check(key: str, value: object) -> float:
        number = _number(value)
        if number is None or not least <= number <= most:
            raise SettingsError(f"{key} is {_shown(value)}: {allowed} are allowed")
        return number

    return check


def count(key: str, value: object) -> int:
    number = _number(value)
    if number is None or number < 0 or number != int(number):
        raise SettingsError(f"{key} is {_shown(value)}: a whole number from 0 is allowed")
    return int(number)


def size(least: int, most: float = math.inf) -> Callable[[str, object], int]:
    """Make a check for a whole number within bounds."""
    allowed = f"whole numbers from {least:,}" + (f" to {most:,}" if most < math.inf else "")

    def check(key: str, value: object) -> int:
        number = _number(value)
        if number is None or number != int(number) or not least <= number <= most:
            raise SettingsError(f"{key} is {_shown(value)}: {allowed} are allowed")
        return int(number)

    return check


def one_of(*words: str) -> Callable[[str, object], str]:
    """Make a check for one of a few words."""

    def check(key: str, value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise SettingsError(f"{key} is {_shown(value)}: {' or '.join(words)} is allowed")

    return check


def directory(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, PathLike)):
        return str(value)
    raise SettingsError(f"{key} is {_shown(value)}: the path of a directory is allowed")


def timeouts(key: str, value: object) -> tuple[float, float]:
    parts: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    numbers = [_number(part) for part in parts]
    positive = [n for n in numbers if n is not None and n > 0]
    if len(positive) != len(numbers) or len(positive) not in (1, 2):
        raise SettingsError(
            f"{key} is {_shown(value)}: seconds above 0 are allowed, one number or (connect, read)"
        )
    return positive[0], positive[-1]


def hosts(key: str, value: object) -> tuple[str, ...]:
    items: object = value.split(",") if isinstance(value, str) else value
    if isinstance(items, Iterable):
        names = [item.strip().lower() if isinstance(item, str) else "" for item in items]
        if names and all(n and not set(n) & set("/@:\\* ") for n in names):
            return tuple(names)
    raise SettingsError(
        f"{key} is {_shown(value)}: host names without scheme, port or path are allowed, "
        f"such as {US_HOST!r}"
    )


def web_url(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _is_url(value.strip(), ("http", "https")):
        return value.strip()
    raise SettingsError(f"{key} is {_shown(value)}: an http:// or https:// URL is allowed")


def redis_url(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _is_url(value.strip(), REDIS_SCHEMES):
        return value.strip()
    # The value stays out of the message: it may hold a password, in any place.
    raise SettingsError(f"{key} is no Redis URL: redis://, rediss:// or unix:// is allowed")


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - read, and so checked
    except ValueError:
        return False
    has_place = bool(parts.hostname) or schemes is REDIS_SCHEMES  # redis:// is the local one
    return parts.scheme in schemes and has_place and not re.search(r"\s", text)


def _number(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    """A refused value, for a message: without the password that a URL in it may hold."""
    return re.sub(r"((?:\w+://)?)[^\s'\"]*@", r"\1***@", repr(value))
