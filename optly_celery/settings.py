"""The ``optly_…`` settings, read once into one frozen object and checked.

They are Celery configuration keys, so they live wherever the Celery app's configuration does:
``app.conf.optly_queue = …``, ``CELERY_OPTLY_QUEUE`` in Django settings under the usual
``namespace="CELERY"``, or ``OPTLY_QUEUE`` in the environment of the standalone worker.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from .errors import SettingsError
from .names import EU_HOST, US_HOST

PREFIX = "optly_"

_DAY_S = 86_400.0
_DEFAULT_VISIBILITY_TIMEOUT_S = 3600.0  # kombu's default for Redis
_REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "unix")


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, with its default. Durations are seconds.

    Raises:
        SettingsError: a value of the wrong type or out of range; the message names the key, the
            value and what is allowed.
    """

    enabled: bool = True
    queue: str = "optimizely"
    allowed_hosts: tuple[str, ...] = (US_HOST, EU_HOST)
    url_override: str | None = None
    request_timeout: tuple[float, float] = (3.05, 10.0)
    max_retries: int = 300
    retry_backoff: float = 1.0
    retry_backoff_max: float = 300.0
    max_age: float = 3 * _DAY_S
    strict: bool = False
    publish_timeout: float = 0.5
    dead_letter_url: str | None = field(default=None, repr=False)  # may hold a password
    dead_letter_max_age: float = 30 * _DAY_S

    def __post_init__(self) -> None:
        for item in fields(self):
            checked = _CHECKS[item.name](PREFIX + item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, checked)
        if self.retry_backoff > self.retry_backoff_max:
            raise SettingsError(
                f"optly_retry_backoff is {self.retry_backoff:g} s, more than "
                f"optly_retry_backoff_max ({self.retry_backoff_max:g} s): lower it or raise that"
            )

    @classmethod
    def from_celery(cls, conf: Any) -> Settings:
        """Read a Celery app's configuration, with or without a namespace.

        Raises:
            SettingsError: as above; also for an ``optly_…`` key that does not exist, and for a
                backoff that Redis' visibility timeout would overtake.
        """
        _refuse_unknown(str(key) for key in conf)
        found = {f.name: conf.get(PREFIX + f.name) for f in fields(cls)}
        settings = cls(**{name: value for name, value in found.items() if value is not None})
        broker = conf.broker_url
        broker = broker[0] if isinstance(broker, (list, tuple)) else str(broker or "")
        if is_redis_url(broker):
            options = conf.broker_transport_options or {}
            settings.check_visibility_timeout(
                float(options.get("visibility_timeout", _DEFAULT_VISIBILITY_TIMEOUT_S))
            )
            if settings.dead_letter_url is None:
                object.__setattr__(settings, "dead_letter_url", broker.split(";")[0])
        return settings

    def check_visibility_timeout(self, visibility_timeout_s: float) -> None:
        """Refuse a backoff during which Redis would hand the message out a second time.

        Raises:
            SettingsError: the longest backoff and the longest attempt together reach it.
        """
        longest_s = self.retry_backoff_max + sum(self.request_timeout)
        if longest_s >= visibility_timeout_s:
            raise SettingsError(
                f"optly_retry_backoff_max ({self.retry_backoff_max:g} s) and "
                f"optly_request_timeout ({sum(self.request_timeout):g} s) together reach the "
                f"broker's visibility_timeout ({visibility_timeout_s:g} s), so Redis would hand "
                "waiting events out again: lower the backoff, or raise visibility_timeout in "
                "broker_transport_options"
            )


def is_redis_url(url: str) -> bool:
    """Whether a broker URL means a Redis-protocol server that redis-py can talk to as well."""
    return url.partition("://")[0] in _REDIS_SCHEMES


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings among environment variables, as Celery configuration keys.

    ``OPTLY_MAX_AGE=3600`` becomes ``{"optly_max_age": "3600"}``; `Settings` reads text.
    ``OPTLY_BROKER_URL`` is the standalone worker's own and is left out.

    Raises:
        SettingsError: an ``OPTLY_…`` variable that is no setting.
    """
    found = {k.lower(): v for k, v in environ.items() if k.startswith(PREFIX.upper())}
    found.pop("optly_broker_url", None)
    _refuse_unknown(found)
    return found


def _refuse_unknown(keys: Iterable[str]) -> None:
    known = [PREFIX + f.name for f in fields(Settings)]
    for key in keys:
        _, mark, name = key.lower().rpartition(PREFIX)
        if not mark or PREFIX + name in known or not _is_ours(key):
            continue
        near = difflib.get_close_matches(PREFIX + name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise SettingsError(f"{key} is no setting of optly_celery: {hint}")


def _is_ours(key: str) -> bool:
    """``optly_x``, ``OPTLY_X`` and ``CELERY_OPTLY_X`` are ours; ``MY_OPTLY_X`` is not."""
    return key.lower().startswith((PREFIX, "celery_" + PREFIX))


def _flag(key: str, value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise SettingsError(f"{key} is {value!r}: true or false is allowed")


def _text(key: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise SettingsError(f"{key} is {value!r}: a name is allowed")


def _seconds(least: float, most: float = math.inf) -> Callable[[str, object], float]:
    allowed = f"seconds from {least:g}" + (f" to {most:g}" if most < math.inf else "")

    def check(key: str, value: object) -> float:
        number = _number(value)
        if number is None or not least <= number <= most:
            raise SettingsError(f"{key} is {value!r}: {allowed} are allowed")
        return number

    return check


def _number(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _count(key: str, value: object) -> int:
    number = _number(value)
    if number is None or number < 0 or number != int(number):
        raise SettingsError(f"{key} is {value!r}: a whole number from 0 is allowed")
    return int(number)


def _timeouts(key: str, value: object) -> tuple[float, float]:
    parts: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    numbers = [_number(part) for part in parts]
    positive = [n for n in numbers if n is not None and n > 0]
    if len(positive) != len(numbers) or len(positive) not in (1, 2):
        raise SettingsError(
            f"{key} is {value!r}: seconds above 0 are allowed, one number or (connect, read)"
        )
    return positive[0], positive[-1]


def _hosts(key: str, value: object) -> tuple[str, ...]:
    hosts: object = value.split(",") if isinstance(value, str) else value
    if isinstance(hosts, Iterable):
        names = [h.strip().lower() if isinstance(h, str) else "" for h in hosts]
        if names and all(n and not set(n) & set("/@:\\ ") for n in names):
            return tuple(names)
    raise SettingsError(
        f"{key} is {value!r}: host names without scheme, port or path are allowed, "
        f"such as {US_HOST!r}"
    )


def _web_url(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        if parts and parts.scheme in ("http", "https") and parts.hostname:
            return str(value)
    except ValueError:
        pass
    raise SettingsError(f"{key} is {value!r}: an http:// or https:// URL is allowed")


def _redis_url(key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and is_redis_url(value):
        return value
    # The value stays out of the message: it may hold a password.
    raise SettingsError(f"{key} is no Redis URL: redis://, rediss:// or unix:// is allowed")


_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "enabled": _flag,
    "queue": _text,
    "allowed_hosts": _hosts,
    "url_override": _web_url,
    "request_timeout": _timeouts,
    "max_retries": _count,
    "retry_backoff": _seconds(0.01),
    "retry_backoff_max": _seconds(0.01),
    "max_age": _seconds(0),
    "strict": _flag,
    "publish_timeout": _seconds(0.01, 60),
    "dead_letter_url": _redis_url,
    "dead_letter_max_age": _seconds(60),
}
