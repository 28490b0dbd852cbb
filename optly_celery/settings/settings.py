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
    optional,
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


def _setting(
    default: object, check: Callable[[str, object], object], *, secret: bool = False
) -> Any:
    # What may hold a password is not shown.
    return field(default=default, repr=not secret, metadata={"check": check})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, with its default. Durations are seconds.

    Raises:
        SettingsError: a value of the wrong type or out of range; the message names the key, the
            value and what is allowed.
    """

    enabled: bool = _setting(True, flag)
    delivery: str = _setting("direct", one_of("direct", "outbox"))
    queue: str = _setting("optimizely", text)
    allowed_hosts: tuple[str, ...] = _setting((US_HOST, EU_HOST), hosts)
    url_override: str | None = _setting(None, web_url, secret=True)
    request_timeout: tuple[float, float] = _setting((3.05, 10.0), timeouts)
    request_deadline: float | None = _setting(None, optional(seconds(0.01)))
    max_retries: int = _setting(300, count)
    retry_backoff: float = _setting(1.0, seconds(0.01))
    retry_backoff_max: float = _setting(300.0, seconds(0.01))
    max_age: float = _setting(3 * _DAY_S, seconds(0))
    pause_after: int = _setting(5, count)
    one_cpu: bool = _setting(True, flag)
    strict: bool = _setting(False, flag)
    publish_timeout: float = _setting(0.5, seconds(0.01, 60))
    batch_events: int = _setting(100, size(1, 10_000))
    batch_bytes: int = _setting(3_000_000, size(1, 3_500_000))
    linger: float = _setting(0.05, seconds(0, 60))
    outbox_dir: str | None = _setting(None, directory)
    outbox_max_bytes: int = _setting(1_000_000_000, size(0))
    dead_letter_url: str | None = _setting(None, redis_url, secret=True)
    dead_letter_max_age: float = _setting(30 * _DAY_S, seconds(60))

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
        timeout_s = visibility_timeout_s(conf)
        if timeout_s is not None:
            settings.check_visibility_timeout(timeout_s)
            if settings.dead_letter_url is None:
                object.__setattr__(settings, "dead_letter_url", _broker(conf).split(";")[0])
        return settings

    @property
    def longest_post_s(self) -> float:
        """How long one POST may take, from looking for a connection to the end of the answer."""
        given = self.request_deadline
        return sum(self.request_timeout) if given is None else given

    def check_visibility_timeout(self, visibility_timeout_s: float) -> None:
        """Refuse a backoff, or a POST, during which Redis would hand the message out again.

        Raises:
            SettingsError: the longest backoff and the longest POST together reach it, or a POST
                may take more than half of it.
        """
        named = "optly_request_deadline" if self.request_deadline else "optly_request_timeout"
        if self.retry_backoff_max + self.longest_post_s >= visibility_timeout_s:
            raise SettingsError(
                f"optly_retry_backoff_max ({self.retry_backoff_max:g} s) and "
                f"{named} ({self.longest_post_s:g} s) together reach the "
                f"broker's visibility_timeout ({visibility_timeout_s:g} s), so Redis would hand "
                "waiting events out again: lower the backoff, or raise visibility_timeout in "
                "broker_transport_options"
            )
        if self.request_deadline is not None and self.request_deadline > visibility_timeout_s / 2:
            raise SettingsError(
                f"optly_request_deadline ({self.request_deadline:g} s) is more than half of the "
                f"broker's visibility_timeout ({visibility_timeout_s:g} s), within which a task "
                "has to end, or Redis would hand its event out again: lower it, or raise "
                "visibility_timeout in broker_transport_options"
            )


def visibility_timeout_s(conf: Any) -> float | None:
    """How long the broker of a Celery app's configuration waits for an ack; None if for ever.

    Raises:
        SettingsError: it is no number.
    """
    if not is_redis_url(_broker(conf)):
        return None
    options = conf.broker_transport_options or {}
    timeout_s = options.get("visibility_timeout", _DEFAULT_VISIBILITY_TIMEOUT_S)
    return seconds(0)("visibility_timeout in broker_transport_options", timeout_s)


def _broker(conf: Any) -> str:
    broker = conf.broker_url
    return str(broker[0]) if isinstance(broker, (list, tuple)) else str(broker or "")


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
    item.name: item.metadata["check"] for item in fields(Settings)
}
_KNOWN = ", ".join(_CHECKS)
