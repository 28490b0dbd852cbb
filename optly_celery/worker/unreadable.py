"""What cannot be read is kept as a dead letter: there a person looks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from ..broker_errors import in_words
from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from ..names import SWEPT_HEADER
from . import ending, readable
from .loop import Loop
from .message import kept_message, name_of
from .receive import origin
from .suspects import MOST_DEATHS, Suspects

logger = logging.getLogger(__name__)

_AGAIN_S = 30.0  # a store that hangs is waited for in the loop, for 5 s


class Unreadable:
    """Keeps what Celery would log, with its content, and delete, of the deliver queue alone.

    It stands before the consumer's own way of receiving. What comes from another queue is none of
    its business; the queue is the one that was consumed, whatever the message says.
    """

    def __init__(
        self,
        consumer: Any,
        loop: Loop,
        dead: DeadLetters,
        suspects: Suspects,
        *,
        queue: str,
        give_back_s: float,
    ) -> None:
        self._consumer = consumer
        self._loop = loop
        self._dead = dead
        self._suspects = suspects
        self._queue = queue
        self._give_back_s = give_back_s

    def install(self) -> None:
        """Take the place of what the consumer does, before it receives anything."""
        self._keep_instead("on_decode_error", "undecodable", 0)
        self._keep_instead("on_invalid_task", "undecodable", 1)
        self._keep_instead("on_unknown_message", "unknown_message", 1)
        self._keep_instead("on_unknown_task", "unknown_task", 1)
        celerys_way = self._consumer.create_task_handler

        def create_task_handler(*args: Any, **kwargs: Any) -> Callable[[Any], object]:
            return functools.partial(self.receive, celerys_way(*args, **kwargs))

        self._consumer.create_task_handler = create_task_handler
        # A queue that is added to a worker that runs already: its loop has made it before.
        tasks = self._consumer.task_consumer
        if tasks is not None and tasks.on_message is not None:
            tasks.on_message = functools.partial(self.receive, tasks.on_message)

    def receive(self, celerys_way: Callable[[Any], object], message: Any) -> object:
        """Have Celery receive what it can run, and keep what it cannot."""
        if origin.current() != self._queue:
            return celerys_way(message)
        if not self._is_readable(message):
            return None
        try:
            return celerys_way(message)
        except Exception as exc:
            lost = self._consumer.connection_errors
            # kombu counts a KeyError as a lost connection.
            if isinstance(exc, lost) and not isinstance(exc, LookupError):
                raise
            self._fail(message, exc)
            return None

    def _is_readable(self, message: Any) -> bool:
        headers = message.headers
        swept = isinstance(headers, dict) and SWEPT_HEADER in headers
        note = f"reading:{name_of(message)}" if swept else ""
        # From the first byte of its body: reading may be what its worker has died of, more than
        # once; and nobody was suspected at its first death.
        if swept and self._suspects.strike(note, least=1) > MOST_DEATHS:
            self._end(message, "killed_worker")
            return False
        try:
            readable.check(message)
        except Exception:  # noqa: BLE001 - it is about any message at all
            self._end(message, "undecodable")
            return False
        finally:
            if swept:
                self._suspects.unstrike(note)
        return True

    def _fail(self, message: Any, exc: Exception) -> None:
        """What Celery raises of a message that can be read: not to end the worker, nor for ever."""
        name = name_of(message)
        if ending.is_ending():  # its pool takes no more: the message goes back with the rest
            logger.info("%s stays unacked: the worker ends", name)
            return
        # Without its text, which may quote the message.
        logger.error("%s could not be received (%s)", name, type(exc).__name__)
        if self._suspects.strike(name) >= MOST_DEATHS:
            self._end(message, "unexpected_error")
            self._suspects.unstrike(name)
        elif not message.acknowledged:
            again = functools.partial(self._loop.give_back, message, name)
            self._loop.later(self._give_back_s, again)

    def _keep_instead(self, name: str, reason: str, position: int) -> None:
        celerys_way = getattr(self._consumer, name)

        def handle(*args: Any) -> None:
            if origin.current() == self._queue:
                self._end(args[position], reason)
            else:
                celerys_way(*args)

        setattr(self._consumer, name, handle)

    def _end(self, message: Any, reason: str) -> None:
        try:
            self._dead.keep(kept_message(message, reason))
        except DeadLetterError as exc:
            logger.warning("a message that cannot be read stays in the queue: %s", exc)
            self._loop.later(_AGAIN_S, functools.partial(self._loop.give_back, message))
            return
        try:
            message.ack()
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            # It comes again, and its letter is the same one.
            logger.warning("a message that was kept could not be acked (%s)", in_words(exc))
