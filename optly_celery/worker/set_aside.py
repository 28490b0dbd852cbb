"""What was in the deliver queue and is no message at all is kept as a dead letter."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..broker_errors import in_words
from ..dead_letters.store import DeadLetters
from ..errors import DeadLetterError
from .loop import Loop
from .message import kept_item, kept_large
from .receive.scripts import ASIDE, MOST_BYTES, run

logger = logging.getLogger(__name__)

REASON = "not_a_message"

_AGAIN_S = 30.0  # a store that hangs is waited for in the loop, for 5 s
_EVERY_S = 5.0
_NEXT_S = 0.05  # to the next portion: the loop has other things to do as well
_PORTION = 10

# KEYS: the list. ARGV: how many to pass over from its end, how many at most, the most bytes.
# Answers with each item, or of one that is too large with its digest and size.
_LOOK = """
local found = {}
for n = ARGV[1] + 1, ARGV[1] + ARGV[2] do
  local item = redis.call('LINDEX', KEYS[1], -n)
  if not item then break end
  found[#found + 1] = #item > tonumber(ARGV[3]) and {redis.sha1hex(item), #item} or item
end
return found
"""

# KEYS: the list, where to put it. ARGV: how many to pass over, the digest. It never leaves Redis.
_PUT = """
local item = redis.call('LINDEX', KEYS[1], -ARGV[1] - 1)
if not item or redis.sha1hex(item) ~= ARGV[2] then return 0 end
redis.call('LPUSH', KEYS[2], item)
return redis.call('LREM', KEYS[1], -1, item)
"""

_FORGET = "return redis.call('LREM', KEYS[1], -1, ARGV[1])"


class SetAside:
    """Empties the list of what was in the deliver queue and is no message.

    Receipt can only set it aside there, since it is a script in Redis, and the dead letters may be
    in another Redis. An older version of this package left it in that list.

    Each item leaves it after it was kept, and its letter's id follows from its content: a kill in
    between, or several workers at once, make one letter of it. One that cannot be kept stays, and
    the next look begins behind it. One that is larger than a worker's memory may be goes to a list
    of its own, and its letter says which.
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
        found: list[bytes | list[Any]] = []
        try:
            found = self._ask(_LOOK, (self._list,), self._passed_over, _PORTION, MOST_BYTES)
            for item in found:
                self._keep(item)
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

    def _keep(self, item: bytes | list[Any]) -> None:
        if isinstance(item, bytes):
            self._dead.keep(kept_item(item, REASON))
            self._ask(_FORGET, (self._list,), item)
        else:
            digest, size = item[0].decode(), int(item[1])
            large = f"{self._list}.{digest}"
            self._dead.keep(kept_large(digest, size, large))
            self._ask(_PUT, (self._list, large), self._passed_over, digest)

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

    def _ask(self, script: str, keys: tuple[str, ...], *args: object) -> Any:
        return run(self._consumer.task_consumer.channel, script, keys, *args)
