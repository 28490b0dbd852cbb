"""Looking through the dead letters, whoever wrote them; it changes nothing.

What somebody else has written may lack any of a letter's three parts. It is listed all the same,
or nobody would ever see it, and remove it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..errors import NoSuchDeadLetterError
from . import letter_id as ids_of
from .letter import ALL, DeadLetter, Filter, WholeLetter, answer_from, event_from, letter_of

PAGE = 500
"""Letters looked at or removed in one go, at about 300 bytes each."""


class Looking:
    """What can be asked of the store. Ids are texts, as `letter_id.shown` makes them."""

    _redis: Any
    _clock: Callable[[], float]
    _events: str
    _facts: str
    _times: str
    _long: dict[str, bytes]

    def _asking(self) -> AbstractContextManager[None]:
        """Turns what a server's trouble raises into `DeadLetterError`."""
        raise NotImplementedError

    def ids(self, where: Filter = ALL) -> list[str]:
        """Ids of the letters within the filter's ages, whatever else it says; oldest first.

        One that has no time is older than any.
        """
        now = self._clock()
        least = "-inf" if where.newer_than_s is None else str(now - where.newer_than_s)
        most = "+inf" if where.older_than_s is None else str(now - where.older_than_s)
        with self._asking():
            # At one moment, or a letter that comes in between would seem to have no time.
            pipe = self._redis.pipeline(transaction=True)
            pipe.zrangebyscore(self._times, least, most)
            pipe.zrange(self._times, 0, -1)
            pipe.hkeys(self._facts)
            pipe.hkeys(self._events)
            found, timed, facts, events = pipe.execute()
        timeless = {*facts, *events}.difference(timed) if where.newer_than_s is None else ()
        return [*self._shown([*sorted(timeless), *found])]

    def list(self, where: Filter = ALL, *, newest_first: bool = False) -> Iterator[DeadLetter]:
        """The letters that match, oldest failure first, fetched a page at a time."""
        ids = self.ids(where)
        if newest_first:
            ids.reverse()
        yield from filter(where.matches, self.pick(ids))

    def pick(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        """Those of these letters that are there, in this order, fetched a page at a time."""
        for start in range(0, len(ids), PAGE):
            yield from self._pick(ids[start : start + PAGE])

    def show(self, letter_id: str) -> WholeLetter:
        """One letter with its event, which is personal data.

        Raises:
            NoSuchDeadLetterError: there is none with this id.
        """
        (raw,) = self._meant([letter_id])
        with self._asking():
            text = self._redis.hget(self._events, raw)
        for letter in self._pick([letter_id]):
            return WholeLetter(**vars(letter), event=event_from(text), answer=answer_from(text))
        raise NoSuchDeadLetterError(
            f"no dead letter has the id {letter_id}: "
            "mistyped, or replayed, purged or removed for its age"
        )

    def count_by_reason(self) -> dict[str, int]:
        """How many letters there are of each reason, most first."""
        reasons = {}
        with self._asking():
            for raw, text in self._redis.hscan_iter(self._facts, count=PAGE):
                reasons[raw] = letter_of("", text).reason
            others = {*self._redis.zrange(self._times, 0, -1), *self._redis.hkeys(self._events)}
        counts = Counter(reasons.values())
        # One of these may have come or gone meanwhile, so they are asked for again.
        counts.update(x.reason for x in self.pick(self._shown(others - reasons.keys())))
        return dict(counts.most_common())

    def _pick(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        raws = self._meant(ids)
        with self._asking():
            found = dict(zip(raws, self._redis.hmget(self._facts, raws), strict=True))
            there = self._halves([raw for raw, text in found.items() if text is None])
        for letter_id, raw in zip(ids, raws, strict=True):
            text = found[raw]
            if text is not None or raw in there:
                yield letter_of(letter_id, there.get(raw, text))

    def _halves(self, raws: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Of letters that seemed to have no facts, those that are there, with their facts."""
        if not raws:
            return {}
        pipe = self._redis.pipeline(transaction=True)
        for raw in raws:
            pipe.hget(self._facts, raw)
            pipe.zscore(self._times, raw)
            pipe.hexists(self._events, raw)
        answers = pipe.execute()
        parts = zip(raws, answers[::3], answers[1::3], answers[2::3], strict=True)
        return {
            raw: facts
            for raw, facts, time, event in parts
            if facts is not None or time is not None or event
        }

    def _shown(self, raws: Iterable[bytes]) -> Sequence[str]:
        ids = {ids_of.shown(raw): raw for raw in raws}
        # What is long is found again by what was seen last, else by looking at all ids.
        self._long = {text: raw for text, raw in ids.items() if ids_of.is_long(text)}
        return [*ids]

    def _meant(self, ids: Sequence[str]) -> Sequence[bytes]:
        long = self._long
        if any(ids_of.is_long(text) and text not in long for text in ids):
            self.ids()
            long = self._long
        return [long[text] if text in long else ids_of.meant(text) for text in ids]
