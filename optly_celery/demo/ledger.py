"""What became of each event of a run, from what was dispatched and what the collector received.

Pure: the tour brings the records, and nothing here trusts the dispatcher's or the worker's word.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The account of one run. Events are told apart by uuid; latencies are milliseconds.

    ``dispatched = delivered + dead_letters + lost``. ``retried`` are events that were posted
    again after an answer that was no 2xx; ``duplicates`` are 2xx answers beyond an event's first.
    ``posts`` are by HTTP status; ``dropped`` is the dispatcher's own count, by reason.
    """

    dispatched: int
    delivered: int
    dead_letters: int
    lost: int
    retried: int
    duplicates: int
    posts: Mapping[str, int]
    dead_letter_reasons: Mapping[str, int]
    dropped: Mapping[str, int]
    dispatch_p50_ms: float
    dispatch_p99_ms: float
    took_s: float

    def balances(self, *, poisoned: int) -> bool:
        """Whether every event was delivered, but for the poisoned, which were kept."""
        return self.lost == 0 and self.dead_letters == poisoned


class Books:
    """Takes in records as they come, in the order in which the collector answered."""

    def __init__(self) -> None:
        self._latencies_s: list[float] = []
        self._dispatched: set[str] = set()
        self._delivered: Counter[str] = Counter()
        self._kept: dict[str, str] = {}
        self._failed: set[str] = set()
        self._retried: set[str] = set()
        self._posts: Counter[str] = Counter()

    def dispatch(self, uuids: Iterable[str], took_s: float) -> None:
        """Note one call of ``dispatch_event``."""
        self._dispatched.update(uuids)
        self._latencies_s.append(took_s)

    def post(self, uuids: Iterable[str], status: int | None) -> None:
        """Note one request and its answer; None where the connection broke instead."""
        uuids = set(uuids)
        self._posts[str(status)] += 1
        self._retried |= uuids & self._failed
        if status is not None and 200 <= status < 300:
            self._delivered.update(uuids)
        else:
            self._failed |= uuids

    def keep(self, uuids: Iterable[str], reason: str) -> None:
        """Note one dead letter."""
        self._kept |= dict.fromkeys(uuids, reason)

    def settled(self) -> int:
        """How many events were delivered or kept."""
        return len(self._dispatched & (self._delivered.keys() | self._kept.keys()))

    def open(self) -> int:
        """How many were neither."""
        return len(self._dispatched) - self.settled()

    def close(self, *, dropped: Mapping[str, int], took_s: float) -> Ledger:
        """The account as it stands; what is open now is lost."""
        delivered = self._dispatched & self._delivered.keys()
        undelivered = self._dispatched - delivered
        dead = [reason for uuid, reason in self._kept.items() if uuid in undelivered]
        return Ledger(
            dispatched=len(self._dispatched),
            delivered=len(delivered),
            dead_letters=len(dead),
            lost=self.open(),
            retried=len(self._retried & self._dispatched),
            duplicates=sum(self._delivered[uuid] - 1 for uuid in delivered),
            posts=dict(self._posts.most_common()),
            dead_letter_reasons=dict(Counter(dead).most_common()),
            dropped=dict(dropped),
            dispatch_p50_ms=_percentile_ms(self._latencies_s, 0.50),
            dispatch_p99_ms=_percentile_ms(self._latencies_s, 0.99),
            took_s=round(took_s, 1),
        )


def _percentile_ms(values_s: list[float], share: float) -> float:
    if not values_s:
        return 0.0
    rank = math.ceil(share * len(values_s)) - 1  # nearest rank: a call that was really made
    return round(sorted(values_s)[rank] * 1000, 3)
