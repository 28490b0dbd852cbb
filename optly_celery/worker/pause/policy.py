"""When to stop posting to a host, when to look again, and how fast to come back. Pure.

A host is *flowing*; after some transient failures in a row it is *paused*, and one event at a
time may be posted, as a probe; after a probe that was answered it is *resuming*, and twice as
many may be under way with each round of answers, until it is flowing again.
"""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...deliver.retry import Verdict, verdict

FIRST_PROBE_S = 1.0
LAST_PROBE_S = 15.0
# Transient failures that come without a status.
_NO_ANSWER = frozenset({"timeout", "connection_error", "broken_answer", "time_limit"})
_RAMP_TO = 32  # this many at a time answered: as good as all
_RAMP_S = 10.0  # or so long without a failure, where there is little to post
_PERMIT_S = 120.0  # a post that has not ended by then never tells: its worker process was lost
_SEEN_S = 3600.0
MOST_HOSTS = 1000
"""Hosts that are remembered: whoever writes into the queue may name as many as there are."""


class Ended(enum.Enum):
    """How one go at an event ended, as far as its host is concerned."""

    ANSWERED = "answered"  # delivered, or refused for the event's own sake
    FAILED = "failed"  # a transient failure
    NOT_TRIED = "not tried"


def how_ended(error: Any) -> Ended:
    """What the error that an attempt ended with says about the event's host."""
    status, reason = getattr(error, "status", None), getattr(error, "reason", None)
    if status is None:
        return Ended.FAILED if reason in _NO_ANSWER else Ended.NOT_TRIED
    return Ended.FAILED if verdict(status) is Verdict.TRANSIENT else Ended.ANSWERED


@dataclass(frozen=True)
class Change:
    """A host was paused, or resumed. ``reason`` is the last failure's, as in dead letters."""

    host: str
    paused: bool
    reason: str


@dataclass
class _Host:
    name: str
    seen_at: float
    failures: int = 0
    reason: str = ""
    paused: bool = False
    limit: int | None = None  # how many at a time; None while it flows
    wait_s: float = FIRST_PROBE_S
    not_before: float = 0.0
    resumed_at: float = 0.0
    permits: dict[str, float] = field(default_factory=dict)


class Pauses:
    """What one worker knows of its hosts; may be called from any thread.

    ``after`` transient failures in a row pause a host, and so does one that says ``Retry-After``;
    with 0 nothing does. ``rand`` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        after: int,
        longest_s: float,
        clock: Callable[[], float],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.enabled = after > 0
        self._after = after
        self._longest_s = longest_s
        self._clock = clock
        self._rand = rand
        self._hosts: dict[str, _Host] = {}
        # Never held across I/O, so that greenlets cannot deadlock on it.
        self._lock = threading.Lock()

    def admit(self, host: str, task_id: str) -> bool:
        """Whether this event may be posted now; asking again for the same event is free."""
        now = self._clock()
        with self._lock:
            known = self._hosts.get(host) or self._meet(host, now)
            if known is None:
                return True
            known.seen_at = now
            if known.limit is None or task_id in known.permits:
                return True
            if self._room(known, now) <= 0:
                return False
            known.permits[task_id] = now
            if known.paused:
                # From the start of the probe: one that hangs has waited already.
                known.not_before = now + known.wait_s * (0.8 + 0.2 * self._rand())
                known.wait_s = min(2 * known.wait_s, LAST_PROBE_S)
            return True

    def stops(self, host: str, task_id: str) -> bool:
        """Whether an event that was admitted may not be posted after all: a pause has begun."""
        known = self._hosts.get(host)
        return known is not None and known.limit is not None and task_id not in known.permits

    def ended(
        self,
        host: str,
        task_id: str,
        how: Ended,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> Change | None:
        """Take note of how an admitted event ended, and say whether that changes anything."""
        now = self._clock()
        with self._lock:
            known = self._hosts.get(host)
            if known is None or not self.enabled:
                return None
            permitted = known.permits.pop(task_id, None) is not None
            if how is Ended.ANSWERED:
                return self._answered(known, permitted, now)
            if how is Ended.FAILED:
                return self._failed(known, permitted, now, reason, retry_after_s)
            if permitted and known.paused:
                known.not_before = now  # nothing was learnt: the next one may try
            return None

    def suspect(self, host: str, reason: str) -> Change | None:
        """Pause a host on hearsay, with a probe due at once; None where it is known already."""
        now = self._clock()
        with self._lock:
            is_new = self.enabled and host not in self._hosts
            known = self._meet(host, now) if is_new else None
            # Where there was no room for it there will be another look.
            return None if known is None else self._pause(known, reason, not_before=now)

    def room(self, host: str) -> int:
        """How many more events of a host in trouble may be posted now; 0 where it flows."""
        now = self._clock()
        with self._lock:
            known = self._hosts.get(host)
            if known is None or known.limit is None:
                return 0
            if not known.paused and now - known.resumed_at >= _RAMP_S:
                self._flow(known)
            return max(0, self._room(known, now))

    def troubled(self) -> dict[str, str]:
        """Hosts that are paused or resuming, with the reason."""
        with self._lock:
            return {h: known.reason for h, known in self._hosts.items() if known.limit is not None}

    def paused(self) -> set[str]:
        with self._lock:
            return {host for host, known in self._hosts.items() if known.paused}

    def any_flows(self) -> bool:
        """Whether to go on receiving: some host is well, or none is in trouble."""
        now = self._clock()
        with self._lock:
            known = self._hosts.values()
            limits = [k.limit for k in known if k.limit is not None or now - k.seen_at < _SEEN_S]
            return not limits or None in limits

    def forget_permits(self) -> None:
        """Events under way will not tell how they end: the worker has lost its connection."""
        with self._lock:
            for known in self._hosts.values():
                known.permits.clear()

    def _meet(self, host: str, now: float) -> _Host | None:
        """Remember a host, but for none that is in trouble and was seen lately: then None."""
        if len(self._hosts) >= MOST_HOSTS:
            idle = sorted(
                (known.failures > 0, known.seen_at, name)
                for name, known in self._hosts.items()
                if known.limit is None or now - known.seen_at > _SEEN_S
            )
            # Half of them, so that a flood costs each name little, and those that fail last.
            for _, _, name in idle[: (len(idle) + 1) // 2]:
                del self._hosts[name]
            if not idle:
                return None
        return self._hosts.setdefault(host, _Host(host, now))

    def _room(self, known: _Host, now: float) -> int:
        if now < known.not_before:
            return 0
        for task_id, at in list(known.permits.items()):
            if now - at > _PERMIT_S:
                del known.permits[task_id]
        return (known.limit or 0) - len(known.permits)

    def _flow(self, known: _Host) -> None:
        known.limit, known.wait_s, known.reason = None, FIRST_PROBE_S, ""
        known.permits.clear()

    def _answered(self, known: _Host, permitted: bool, now: float) -> Change | None:
        if known.limit is not None and not permitted:
            return None  # posted before the pause: says nothing of now
        known.failures = 0
        if known.limit is None:
            return None
        change = None
        if known.paused:
            change = Change(known.name, False, known.reason)
            known.paused, known.not_before, known.resumed_at = False, 0.0, now
        # One more for each that is answered: twice as many with each round.
        known.limit += 1
        # An endpoint that comes and goes is asked less often than one that went once.
        known.wait_s = max(FIRST_PROBE_S, known.wait_s / 2)
        if known.limit >= _RAMP_TO:
            self._flow(known)
        return change

    def _failed(
        self, known: _Host, permitted: bool, now: float, reason: str, retry_after_s: float | None
    ) -> Change | None:
        known.failures += 1
        change = None
        if known.paused:
            known.reason = reason
        elif permitted or known.failures >= self._after or retry_after_s:
            change = self._pause(known, reason, not_before=now + known.wait_s)
        if known.paused and retry_after_s:
            # Upwards only: a host that has named a time gets no question before it.
            wait_s = min(retry_after_s * (1.0 + 0.1 * self._rand()), self._longest_s)
            known.not_before = max(known.not_before, now + wait_s)
        return change

    def _pause(self, known: _Host, reason: str, not_before: float) -> Change:
        known.paused, known.limit, known.reason = True, 1, reason
        known.permits.clear()
        known.not_before = not_before
        known.wait_s = min(2 * known.wait_s, LAST_PROBE_S)
        return Change(known.name, True, reason)
