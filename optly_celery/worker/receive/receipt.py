"""A receipt of messages from Redis that is one step there: to be put over kombu's channel.

One step it is for one queue. A worker of several waits for them as kombu does, since Redis waits at
several lists only by popping; what it has popped is noted, and read, as what one step took.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from time import monotonic
from typing import Any

from ...broker_errors import in_words
from . import notes
from .scripts import ASIDE, TAKE

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 100
_REFUSED_WAIT_S = 1.0
_SAY_AGAIN_S = 60.0
# The node is the wrong one, or cannot do anything now: connect anew, perhaps to another.
_ELSEWHERE = ("ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError")


def serve(channel: Any, queue: str) -> None:
    """Set aside beside this queue what cannot be read and does not say where it came from."""
    channel.connection.serves = queue


class AtomicReceipt:
    """Over a channel of kombu's Redis transport, whose acks are `transport.QoS`."""

    asked: tuple[str, str, int] | None = None
    _tags_asked = ""
    on_set_aside: Callable[[], object] = bool
    unacked_restore_interval = 10.0
    _more = True
    _not_before_s = 0.0
    _say_at_s = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._no_ack_queues: set[str] = set()
        self._takers: dict[str, Callable[[Any], object]] = {}
        self._tags = f"{uuid.uuid4().hex}."
        self._takes = 0
        super().__init__(*args, **kwargs)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], object], *args: Any, **kwargs: Any
    ) -> Any:
        if no_ack:
            self._no_ack_queues.add(queue)
        elif self.serves is None:
            serve(self, queue)
        self._takers[queue] = callback
        return super().basic_consume(queue, no_ack, callback, *args, **kwargs)  # type: ignore[misc]

    @property
    def serves(self: Any) -> str | None:
        """The queue that `serve` names, or the first whose messages are acked; None for neither."""
        return getattr(self.connection, "serves", None)

    def new_tags(self) -> str:
        """What the tags of the messages of one step begin with."""
        self._takes += 1
        return f"{self._tags}{self._takes}."

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        queues = list(self.active_queues)
        self.qos.restore_visible(num=self.unacked_restore_limit)
        if len(queues) != 1 or queues[0] in self._no_ack_queues or not self.ack_emulation:
            has_acks = self.ack_emulation and not self._no_ack_queues.intersection(queues)
            self.asked = ("BRPOP", "", 0) if has_acks else None
            self._brpop_sent_at = monotonic()  # which kombu before 5.7 does not note
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        if monotonic() < self._not_before_s:
            return
        (queue,) = queues
        prefix, lists = self.global_keyprefix, notes.lists_of(self, queue)
        if self._more:
            count = self._room()
            if not count:
                return
            keys = [prefix + key for key in (*notes.keys_of(self), ASIDE % queue, *lists)]
            self._tags_asked = self.new_tags()
            arguments = notes.arguments(queue, self._tags_asked, count)
            command = ("EVAL", TAKE, len(keys), *keys, *arguments)
        else:
            # From the end of the list to the end of the list: nothing moves, but it waits.
            count, source = 0, prefix + lists[0]
            wait_s = timeout or self.brpop_timeout
            command = ("BLMOVE", source, source, "RIGHT", "RIGHT", wait_s)
        self.asked = str(command[0]), queue, count
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _room(self: Any) -> int:
        """How many to take now; none until an eighth of the prefetch limit is free."""
        if "can_consume" in vars(self.qos):
            return 1  # with --disable-prefetch Celery is to be asked before each message
        limit = self.qos.prefetch_count
        if not limit:
            return _MOST_AT_ONCE
        free = self.qos.can_consume_max_estimate()
        return 0 if free < limit // 8 else min(free, _MOST_AT_ONCE)

    def _brpop_read(self: Any, **options: Any) -> bool:
        if self.asked is None:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]
        command, queue, count = self.asked
        try:
            reply = self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # and the next turn connects again
            raise
        except self.ResponseError as exc:
            if command == "BRPOP" or type(exc).__name__ in _ELSEWHERE:
                raise
            self._refused(command, queue, exc)
            raise Empty from None
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if command == "BRPOP":
            return bool(self._hand_over_popped(reply))
        if command == "BLMOVE":
            # Lists of other priorities have nobody who waits at them.
            self._more = reply is not None or len(self.priority_steps) > 1
            raise Empty
        items, aside = reply
        self._more = len(items) + aside == count
        if aside:
            notes.told(self, queue, aside, "too large")
        if not items:
            raise Empty
        self._hand_over([(f"{self._tags_asked}{n}", item) for n, item in enumerate(items)], queue)
        return True

    def _hand_over_popped(self: Any, reply: Any) -> bool:
        if not reply:
            raise Empty
        key, item = reply
        queue = key.decode().rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        tag = self.new_tags()
        notes.adopt(self, queue, tag, item)
        self._hand_over([(tag, item)], queue)
        return True

    def _refused(self, command: str, queue: str, exc: Exception) -> None:
        """Ask again in a second: nothing was taken, and the worker goes on."""
        now = monotonic()
        self._more, self._not_before_s = True, now + _REFUSED_WAIT_S
        # A full Redis refuses to wait, not to hand out, and one before 6.2 cannot wait like this.
        waits = type(exc).__name__ == "OutOfMemoryError" or "unknown command" in str(exc)
        if not (command == "BLMOVE" and waits) and now >= self._say_at_s:
            self._say_at_s = now + _SAY_AGAIN_S
            logger.error(
                "nothing can be received from %s: Redis %s. Look at the types of its keys, and at "
                "what its user may do: docs/operations.md says what a worker needs",
                queue, in_words(exc),
            )  # fmt: skip

    def _hand_over(self: Any, taken: list[tuple[str, bytes]], queue: str) -> None:
        done = 0
        try:
            for tag, item in taken:
                if queue not in self.active_queues:  # cancelled while these were on their way
                    break
                done += 1
                is_limited = queue == self.serves
                message = notes.message_of(self, queue, tag, item, is_limited=is_limited)
                if message is not None:
                    self._takers[queue](message)
        finally:
            notes.give_all_back(self, [tag for tag, _ in taken[done:]], queue=queue)

    def close(self: Any) -> None:
        if not self.closed and self._qos is not None:
            self._qos.settle()
        super().close()  # type: ignore[misc]

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """One redis-py client instead of one a command, which costs more than the command."""
        yield client or self._kept_client

    @functools.cached_property
    def _kept_client(self: Any) -> Any:
        return self._create_client()
