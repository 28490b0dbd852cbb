"""Try again or not, and when: the one place where that is decided. Pure."""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_TRANSIENT = frozenset({408, 425, 429})
_SPLITTABLE = frozenset({400, 413, 422})

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")  # no sign, no exponent, no inf, no nan
_LONGEST_S = 999_999_999.0


class Verdict(enum.Enum):
    """What an HTTP status means for the event."""

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


def verdict(status: int) -> Verdict:
    """Judge an answer: 2xx delivered; 408, 425, 429 and 5xx transient; other 3xx, 4xx permanent.

    101 is no answer to a POST, and 600 and more is none at all: transient, as a 5xx is (RFC 9110,
    section 15).
    """
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status in _TRANSIENT or not 300 <= status < 500:
        return Verdict.TRANSIENT
    return Verdict.PERMANENT


def is_splittable(status: int | None) -> bool:
    """Whether a refusal may be about one visitor among several: 400, 413, 422."""
    return status in _SPLITTABLE


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds from ``now`` that a ``Retry-After`` header asks for, or None without a usable one.

    Both forms of RFC 9110, section 10.2.3: seconds, here with a fraction as well, as some write
    them, and an HTTP date. A date in the past means 0.
    """
    text = (header or "").strip(" \t")
    if _SECONDS.fullmatch(text):
        return min(float(text), _LONGEST_S)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    if when.tzinfo is None:  # the date said -0000: UTC, by RFC 5322
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - now).total_seconds())


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter, bounded in attempts and in age.

    The wait after attempt n is ``base_backoff_s * 2 ** (n - 1)``, at most ``max_backoff_s``, of
    which a random half is taken off: waits spread out, and none is near zero. ``rand`` gives
    numbers from 0 to 1.
    """

    max_attempts: int
    base_backoff_s: float
    max_backoff_s: float = 300.0
    max_age_s: float = 3 * 86_400.0
    rand: Callable[[], float] = random.random

    def gives_up(self, attempt: int, age_s: float) -> str | None:
        """The reason why a failed attempt was the last, or None while there is another."""
        if attempt >= self.max_attempts:
            return "attempts_exhausted"
        return "too_old" if age_s > self.max_age_s else None

    def backoff_s(self, attempt: int, at_least_s: float | None = None) -> float:
        """Seconds to wait after a failed attempt.

        ``at_least_s``, the endpoint's ``Retry-After``, raises the wait up to ``max_backoff_s``;
        a tenth of jitter on top keeps those who were told the same from coming back at once.
        """
        # 2 ** 64 backoffs outgrow any maximum; a float would overflow at 2 ** 1024.
        full_s = min(self.base_backoff_s * 2.0 ** min(attempt - 1, 64), self.max_backoff_s)
        wait_s = full_s * (0.5 + 0.5 * self.rand())
        if at_least_s is not None and at_least_s > wait_s:
            wait_s = min(at_least_s * (1.0 + 0.1 * self.rand()), self.max_backoff_s)
        return wait_s
