"""Dead letters: events kept for a person. The only module that imports redis.

Three keys hold them: ``events`` (id to the letter as JSON), ``times`` (ids by last failure) and
``reasons`` (id to reason). Every change is one transaction, and keeping the same letter twice
leaves one, so a crash at any point leaves nothing half done and nothing counted twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import DeadLetterError, NoSuchDeadLetterError
from ..event import Event

logger = logging.getLogger(__name__)

_PAGE = 100  # letters fetched or purged at once: an event may have 3.5 MB
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class DeadLetter:
    """One kept event and why it was kept. ``repr`` leaves the event out.

    ``error`` is the last attempt's own reason (``http_503``) where ``reason`` says why there is
    no other (``attempts_exhausted``); ``task_id`` is the task's id in Flower.
    """

    id: str
    task_id: str
    reason: str
    error: str
    status: int | None
    attempts: int
    first_at: datetime
    last_at: datetime
    summary: str
    event: Event = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which letters are meant; the default means all. Ages count from the last failure."""

    reason: str | None = None
    status: int | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None

    def matches(self, letter: DeadLetter) -> bool:
        return (self.reason is None or self.reason == letter.reason) and (
            self.status is None or self.status == letter.status
        )


class DeadLetters:
    """The store, on a Redis-protocol server; made without connecting.

    Every method raises `DeadLetterError` when the server does not answer within 5 seconds or
    refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age_s: float,
        key_prefix: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis.Redis.from_url(
            _for_redis_py(url),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # type: ignore[no-untyped-call, unused-ignore]
        )
        self._max_age_s = max_age_s
        self._clock = clock
        base = f"{key_prefix}optly_celery:dead-letters:"
        self._events, self._times, self._reasons = (
            base + k for k in ("events", "times", "reasons")
        )
        self._expired = base + "expired"

    def keep(
        self,
        event: Event,
        *,
        task_id: str,
        reason: str,
        error: str,
        status: int | None,
        attempts: int,
        first_at: float,
    ) -> str:
        """Store one letter and return its id; it is in Redis when this returns.

        The id follows from task and event, so a redelivered task keeps its letter once.
        Letters older than the setting's age are removed, counted and warned of.
        """
        letter_id = hashlib.sha256(f"{task_id}\n{event.url}\n{event.body}".encode()).hexdigest()[
            :16
        ]
        now = self._clock()
        record = {
            "task_id": task_id,
            "reason": reason,
            "error": error,
            "status": status,
            "attempts": attempts,
            "first_at": first_at,
            "last_at": now,
            "event": {
                "url": event.url,
                "verb": event.verb,
                "headers": event.headers,
                "params": event.params,
            },
        }
        with _translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(self._events, letter_id, json.dumps(record))
            pipe.zadd(self._times, {letter_id: now})
            pipe.hset(self._reasons, letter_id, reason)
            pipe.execute()
        logger.warning(
            "dead letter %s: %s, attempt %d: %s", letter_id, event.summary, attempts, reason
        )
        # The letter is safe; a failure to clean up is the next call's to mend.
        with contextlib.suppress(DeadLetterError):
            self._expire(now)
        return letter_id

    def ids(self, where: Filter = Filter()) -> list[str]:
        """Ids of the letters within the filter's ages, oldest failure first.

        Reason and status are in the letters themselves: `list` looks at those.
        """
        now = self._clock()
        least = "-inf" if where.newer_than_s is None else str(now - where.newer_than_s)
        most = "+inf" if where.older_than_s is None else str(now - where.older_than_s)
        with _translated():
            found = self._redis.zrangebyscore(self._times, least, most)
        return [letter_id.decode() for letter_id in cast("list[bytes]", found)]

    def list(self, where: Filter = Filter()) -> Iterator[DeadLetter]:
        """The letters that match, oldest failure first, fetched a page at a time."""
        ids = self.ids(where)
        for start in range(0, len(ids), _PAGE):
            for letter in self._fetch(ids[start : start + _PAGE]):
                if where.matches(letter):
                    yield letter

    def show(self, letter_id: str) -> DeadLetter:
        """One letter, whole.

        Raises:
            NoSuchDeadLetterError: there is none with this id.
        """
        for letter in self._fetch([letter_id]):
            return letter
        raise NoSuchDeadLetterError(f"no dead letter has the id {letter_id}")

    def replay(
        self, letters: Iterable[DeadLetter], publish: Callable[[Event], object]
    ) -> Iterator[DeadLetter]:
        """Publish letters again, unchanged, and yield each once it has left the store.

        A letter leaves only after the broker has its event: an interruption at any point leaves
        at worst one event both published and kept, never one in neither place.
        """
        for letter in letters:
            publish(letter.event)
            self._remove([letter.id])
            yield letter

    def purge(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Delete letters without delivering them, and yield each once it is gone."""
        for letter in letters:
            self._remove([letter.id])
            yield letter

    def count_by_reason(self) -> dict[str, int]:
        """How many letters there are of each reason, most first."""
        with _translated():
            reasons = self._redis.hvals(self._reasons)
        return dict(Counter(r.decode() for r in cast("list[bytes]", reasons)).most_common())

    def expired(self) -> int:
        """How many letters have been removed for their age since the store was made."""
        with _translated():
            return int(cast("bytes | None", self._redis.get(self._expired)) or 0)

    def _fetch(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        with _translated():
            records = self._redis.hmget(self._events, list(ids)) if ids else []
        for letter_id, record in zip(ids, cast("list[bytes | None]", records), strict=True):
            if record is not None:  # else replayed or purged by somebody meanwhile
                yield _letter(letter_id, json.loads(record))

    def _remove(self, ids: Sequence[str], *, expired: int = 0) -> None:
        with _translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hdel(self._events, *ids)
            pipe.zrem(self._times, *ids)
            pipe.hdel(self._reasons, *ids)
            if expired:
                pipe.incrby(self._expired, expired)
            pipe.execute()

    def _expire(self, now: float) -> None:
        with _translated():
            found = self._redis.zrangebyscore(
                self._times, "-inf", str(now - self._max_age_s), start=0, num=_PAGE
            )
        ids = [letter_id.decode() for letter_id in cast("list[bytes]", found)]
        if ids:
            self._remove(ids, expired=len(ids))
            logger.warning(
                "removed %d dead letters older than optly_dead_letter_max_age (%g days)",
                len(ids),
                self._max_age_s / 86_400,
            )


def _letter(letter_id: str, record: dict[str, Any]) -> DeadLetter:
    wire = record["event"]
    event = Event(
        wire["url"], wire["verb"], wire["params"], wire["headers"], json.dumps(wire["params"])
    )
    return DeadLetter(
        id=letter_id,
        task_id=record["task_id"],
        reason=record["reason"],
        error=record["error"],
        status=record["status"],
        attempts=record["attempts"],
        first_at=datetime.fromtimestamp(record["first_at"], timezone.utc),
        last_at=datetime.fromtimestamp(record["last_at"], timezone.utc),
        summary=event.summary,
        event=event,
    )


def _for_redis_py(url: str) -> str:
    """kombu's spelling of a Redis URL in redis-py's: unix sockets, and names of TLS options."""
    parts = urlsplit(url)
    if parts.scheme in ("redis+socket", "unix"):
        query = [("db" if k == "virtual_host" else k, v) for k, v in parse_qsl(parts.query)]
        return urlunsplit(("unix", parts.netloc, parts.path, urlencode(query), ""))
    query = [
        (k, v.lower().removeprefix("cert_") if k == "ssl_cert_reqs" else v)
        for k, v in parse_qsl(parts.query)
    ]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as exc:
        # Not chained, and without its text: redis-py's messages may quote what was sent.
        raise DeadLetterError(f"Redis did not take it ({type(exc).__name__})") from None
