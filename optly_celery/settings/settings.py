"""The ``optly_…`` settings, read once into one frozen object and checked.

They are Celery configuration keys, so they live wherever the Celery app's configuration does:
``app.conf.optly_queue = …``, ``CELERY_OPTLY_QUEUE`` in Django settings under the usual
``namespace="CELERY"``, or ``OPTLY_QUEUE`` in the environment of the standalone worker.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import SettingsError
from ..names import EU_HOST, US_HOST
from .values import (
    REDIS_SCHEMES,
    count,
    directory,
    flag,
    hosts,
    one_of,
    redis_url,
    seconds,
    size,
    text,
    timeouts,
    web_url,
)

PREFIX = "optly_"

_DAY_S = 86_400.0
_DEFAULT_VISIBILITY_TIMEOUT_S = 3600.0  # kombu's default for Redis


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, with its default. Durations are seconds.

    Raises:
        SettingsError: a value of the wrong type or out of range; the message names the key, the
            value and what is allowed.
    """

    enabled: bool = True
    delivery: str = "direct"
    queue: str = "optimizely"
    allowed_hosts: tuple[str, ...] = (US_HOST, EU_HOST)
    url_override: str | None = field(default=None, repr=False)  # may hold a password
    request_timeout: tuple[float, float] = (3.05, 10.0)
    max_retries: int = 300
    retry_backoff: float = 1.0
    retry_backoff_max: float = 300.0
    max_age: float = 3 * _DAY_S
    pause_after: int = 5
    one_cpu: bool = True
    strict: bool = False
    publish_timeout: float = 0.5
    batch_events: int = 100
    batch_bytes: int = 3_000_000
    linger: float = 0.05
    outbox_dir: str | None = None
    outbox_max_bytes: int = 1_000_000_000
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
        _refuse_unread(conf)
        found = {f.name: conf.get(PREFIX + f.name) for f in fields(cls)}
        settings = cls(**{name: value for name, value in found.items() if value is not None})
        broker = conf.broker_url
        broker = broker[0] if isinstance(broker, (list, tuple)) else str(broker or "")
        if is_redis_url(broker):
            options = conf.broker_transport_options or {}
            timeout_s = options.get("visibility_timeout", _DEFAULT_VISIBILITY_TIMEOUT_S)
            settings.check_visibility_timeout(
                seconds(0)("visibility_timeout in broker_transport_options", timeout_s)
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
    return url.partition("://")[0] in REDIS_SCHEMES


def _refuse_unknown(key: str, prefix: str) -> None:
    """Refuse a key that starts with the prefix, in any case, and goes on to name no setting."""
    name = key[len(prefix) :].lower()
    if name not in _CHECKS:
        near = difflib.get_close_matches(name, _CHECKS, n=1)
        spell = str.upper if key.isupper() else str.lower
        hint = f"did you mean {spell(prefix + near[0])}?" if near else f"known: {_KNOWN}"
        raise SettingsError(f"{key} is no setting of optly_celery: {hint}")


def _refuse_unread(conf: Any) -> None:
    """Refuse what a Celery app's configuration holds under our prefix without reading it.

    Django's settings hold more than Celery's: what lacks the namespace is somebody else's, such
    as ``OPTLY_SDK_KEY``, unless it names a setting and so was surely meant for one.
    """
    keys = [str(key) for key in conf]  # first: this is what makes Celery read its source
    namespace = getattr(conf, "prefix", None) or ""
    for key in keys:
        if key.startswith(PREFIX):
            _refuse_unknown(key, PREFIX)
        elif namespace and key.lower().startswith((namespace + PREFIX).lower()):
            _refuse_unknown(key, namespace + PREFIX)
        elif key.startswith(PREFIX.upper()) and key.lower().removeprefix(PREFIX) in _CHECKS:
            right = namespace + key if namespace else key.lower()
            raise SettingsError(f"{key} is not read by Celery: write {right}")


_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "enabled": flag,
    "delivery": one_of("direct", "outbox"),
    "queue": text,
    "allowed_hosts": hosts,
    "url_override": web_url,
    "request_timeout": timeouts,
    "max_retries": count,
    "retry_backoff": seconds(0.01),
    "retry_backoff_max": seconds(0.01),
    "max_age": seconds(0),
    "pause_after": count,
    "one_cpu": flag,
    "strict": flag,
    "publish_timeout": seconds(0.01, 60),
    "batch_events": size(1, 10_000),
    "batch_bytes": size(1, 3_500_000),
    "linger": seconds(0, 60),
    "outbox_dir": directory,
    "outbox_max_bytes": size(0),
    "dead_letter_url": redis_url,
    "dead_letter_max_age": seconds(60),
}
_KNOWN = ", ".join(_CHECKS)
