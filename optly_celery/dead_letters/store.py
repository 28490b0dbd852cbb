"""The store of dead letters: events kept for a person. The only module that imports redis.

Three keys hold them: ``events`` and ``facts`` (by the letter's id, as JSON) and ``times`` (ids by
last failure). Every change is one transaction or script, so a crash at any point leaves nothing
half done. Reading changes nothing: only `keep`, which runs in workers, removes letters for their
age, since whoever looks may do so with other settings than the workers'. The time is the server's:
one host whose clock is wrong would remove the letters of all others.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..broker_errors import in_words
from ..errors import DeadLetterError, SettingsError
from ..event.printable import printable
from .letter import Fate, Kept, event_text, id_of, letter_text
from .letter_id import shown
from .looking import PAGE, Looking
from .redis_url import address, for_redis_py

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_STRIKES_S = 86_400
_CLAIM_S = 60  # a publish takes no longer; a killed replay holds its one letter for so long

# A script: two workers at once must not count one letter twice.
_EXPIRE = """
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #ids > 0 then
  redis.call('ZREM', KEYS[1], unpack(ids))
  redis.call('HDEL', KEYS[2], unpack(ids))
  redis.call('HDEL', KEYS[3], unpack(ids))
  redis.call('INCRBY', KEYS[4], #ids)
end
return #ids
"""


class DeadLetters(Looking):
    """The store, on a Redis-protocol server; made without connecting.

    Every method raises `DeadLetterError` when the server refuses, or leaves a command without an
    answer for 5 seconds. ``clock`` None is the server's, seconds since the epoch.

    Raises:
        SettingsError: the URL is not one that redis-py understands.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age_s: float,
        key_prefix: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            self._redis: Any = redis.Redis.from_url(
                for_redis_py(url),
                encoding_errors="surrogatepass",  # a stranger's id may hold half a character
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                # Once more when an idle connection turns out dead; not after waiting in vain.
                retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),  # type: ignore[no-untyped-call, unused-ignore]
            )
            self._address = address(url)
        except ValueError:
            # Not chained: the text may quote a part of the password.
            raise SettingsError(
                "optly_dead_letter_url (by default the broker's URL) is not like "
                "redis://:password@host:6379/0, with the password percent-encoded"
            ) from None
        self._max_age_s = max_age_s
        self._given_clock = clock
        base = f"{key_prefix}optly_celery:dead-letters:"
        self._events, self._facts, self._times = (base + k for k in ("events", "facts", "times"))
        self._expired, self._claims = base + "expired", base + "replaying:"
        self._strikes = base + "strikes:"
        self._long = {}

    def keep(self, kept: Kept) -> str:
        """Store one letter and return its id; it is in Redis when this returns.

        The id follows from task and event, so a redelivered task keeps its letter once, and an
        event that is refused again after its replay, by another task, gets a letter of its own.
        Letters older than the setting's age are removed, counted and warned of.
        """
        letter_id, now = id_of(kept), self._clock()
        text = letter_text(kept, now)
        with self._asking():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._events, letter_id, event_text(kept.event, kept.answer))
            pipe.hset(self._facts, letter_id, text)
            pipe.zadd(self._times, {letter_id: now})
            pipe.execute()
        logger.warning(
            "dead letter %s: %s, attempt %d: %s",
            letter_id, printable(kept.event.summary), kept.attempts, printable(kept.reason),
        )  # fmt: skip
        try:
            self._expire(now)
        except DeadLetterError as exc:
            logger.warning("dead letters past their age could not be removed: %s", exc)
        return letter_id

    @contextlib.contextmanager
    def claim(self, letter_id: str) -> Iterator[bool]:
        """Whether this letter is nobody else's to replay for the length of the block."""
        key = self._claims + shown(*self._meant([letter_id]))  # however it was spelled
        with self._asking():
            try:
                claimed = bool(self._redis.set(key, 1, nx=True, ex=_CLAIM_S))
            except redis.ResponseError as exc:
                if "maxmemory" not in str(exc):
                    raise
                claimed = True  # a full store cannot note claims, and replaying empties it
        try:
            yield claimed
        finally:
            if claimed:
                with contextlib.suppress(redis.RedisError, OSError):
                    self._redis.delete(key)

    def purge(self, ids: Sequence[str]) -> Iterator[Fate]:
        """Delete letters without delivering them, and yield what became of each."""
        for start in range(0, len(ids), PAGE):
            removed = self.remove(page := ids[start : start + PAGE])
            yield from [Fate.PURGED] * removed + [Fate.GONE] * (len(page) - removed)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove letters, whole or not at all; how many of them were there."""
        raws = self._meant(ids)
        with self._asking():
            pipe = self._redis.pipeline(transaction=True)
            # One by one: of some, a part alone may be there.
            for raw in raws:
                pipe.zrem(self._times, raw)
                pipe.hdel(self._facts, raw)
                pipe.hdel(self._events, raw)
            removed = pipe.execute()
        return sum(map(any, zip(*[iter(removed)] * 3, strict=True)))

    def expired(self) -> int:
        """How many letters have been removed for their age since the store was made."""
        with self._asking():
            found = self._redis.get(self._expired)
        count = b"0" if found is None else found
        if not count.isdigit() or len(count) > 19:  # Redis counts to 2**63
            raise DeadLetterError(f"{self._address} has no number under {self._expired}")
        return int(count)

    def strike(self, task_id: str, *, least: int = 0) -> int:
        """Count, from ``least`` on, the deaths that a task may be guilty of; forgotten in a day."""
        key = self._strikes + task_id
        with self._asking():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(key, least, nx=True, ex=_STRIKES_S)
            pipe.incr(key)
            return int(pipe.execute()[1])

    def forgive(self, task_id: str) -> None:
        """Count from the start again."""
        with self._asking():
            self._redis.delete(self._strikes + task_id)

    def _clock(self) -> float:
        if self._given_clock is not None:
            return self._given_clock()
        with self._asking():
            found: Any = self._redis.time()
        return float(found[0] + found[1] / 1e6)

    def _expire(self, now: float) -> None:
        keys = (self._times, self._facts, self._events, self._expired)
        days = self._max_age_s / 86_400
        with self._asking():
            count = self._redis.eval(_EXPIRE, len(keys), *keys, now - self._max_age_s, PAGE)
        if count:
            logger.warning("removed %d dead letters, older than %g days", count, days)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as exc:
            # Not chained: redis-py's messages may quote what was sent.
            other = ": a key of it is of another type" if "WRONGTYPE" in str(exc) else ""
            raise DeadLetterError(f"{self._address} {in_words(exc)}{other}") from None
