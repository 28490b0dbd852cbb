"""What was in the queue and is no message becomes a dead letter: there a person looks.

Receipt can only set it aside, in a Redis list, since it is a script there, and the dead letters may
be in another Redis. An older version of this package left it in that list.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ..broker_errors import in_words
from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from .loop import Loop
from .message import kept_item
from .receive.receipt import ASIDE, AtomicReceipt

logger = logging.getLogger(__name__)

REASON = "not_a_message"

_EVERY_S = 5.0
_NEXT_S = 0.05  # to the next portion: the loop has other things to do as well
_AGAIN_S = 30.0  # a store that hangs is waited for in the loop, for 5 s
_PORTION = 10


class SetAside:
    """Empties the list, in a worker of the deliver queue.

    Each item leaves it after it was kept, and its letter's id follows from its content: a kill in
    between, or several workers at once, make one letter of it. One that cannot be kept stays, and
    the next look begins behind it.
    """

    def __init__(self, consumer: Any, loop: Loop, dead: DeadLetters, *, queue: str) -> None:
        self._consumer = consumer
        self._loop = loop
        self._dead = dead
        self._queue = queue
        self._list = ASIDE % queue
        self._entry: Any = None
        self._passed_over = 0
        self._not_before_s = 0.0
        self._told = ""
        self._looking = False

    def start(self) -> None:
        """Look now, every few seconds, and when the receipt says so; not where it is no Redis."""
        channel = self._consumer.task_consumer.channel
        if not hasattr(channel, "unacked_key"):
            return
        if isinstance(channel, AtomicReceipt):
            channel.on_set_aside = self._soon
        self._entry = self._consumer.timer.call_repeatedly(_EVERY_S, self._soon)
        self._soon()

    def stop(self) -> None:
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _soon(self) -> None:
        self._loop.soon(self._look)

    def _look(self) -> None:
        # Greenlets may come here while another waits for Redis.
        if self._looking or time.monotonic() < self._not_before_s or not self._is_wanted():
            return
        self._looking = True
        found: list[bytes] = []
        try:
            found = self._ask("LRANGE", -self._passed_over - _PORTION, -self._passed_over - 1)
            for item in reversed(found):
                self._dead.keep(kept_item(item, REASON))
                self._ask("LREM", -1, item)
            if found or not self._passed_over:
                self._told = ""
            else:  # only what was passed over is left: from the start again
                self._passed_over = 0
        except DeadLetterError as exc:
            self._pass_over(f"what is no message stays in {self._list}: {exc}")
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            self._pass_over(f"no look at what was set aside in {self._list} ({in_words(exc)})")
        finally:
            self._looking = False
        if len(found) == _PORTION:
            self._consumer.timer.call_after(_NEXT_S, self._soon)

    def _pass_over(self, why: str) -> None:
        self._passed_over += 1
        self._not_before_s = time.monotonic() + _AGAIN_S
        if why != self._told:  # once, not twice a minute for as long as it lasts
            logger.warning("%s", why)
        self._told = why

    def _is_wanted(self) -> bool:
        """Whether the connection stands, and nobody has told this worker to leave the queue."""
        consumer = self._consumer
        wanted = consumer.app.amqp.queues.consume_from
        return consumer.task_consumer is not None and self._queue in wanted

    def _ask(self, command: str, *args: object) -> Any:
        channel = self._consumer.task_consumer.channel
        with channel.conn_or_acquire() as client:
            # kombu's own client puts the prefix before the keys of some commands, not of these.
            return client.execute_command(command, channel.global_keyprefix + self._list, *args)
