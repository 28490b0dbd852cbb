"""A receipt of messages from Redis that is one step there: to be put over kombu's channel."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from time import monotonic, time
from typing import Any

from ...names import SWEPT_HEADER

logger = logging.getLogger(__name__)

# KEYS: unacked, unacked_index, where to put what is no message, then the queue's lists by priority.
# ARGV: how many at most, the time. What RPOP takes is noted in kombu's own form, as text: decoding
# and encoding it again could change a number.
TAKE = """
local taken, aside = {}, 0
for i = 4, #KEYS do
  while #taken + aside < tonumber(ARGV[1]) do
    local message = redis.call('RPOP', KEYS[i])
    if not message then break end
    local ok, tag, note = pcall(function()
      local properties = cjson.decode(message).properties
      local info = properties.delivery_info
      return properties.delivery_tag, '[' .. message .. ', '
        .. cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key) .. ']'
    end)
    if ok and type(tag) == 'string' then
      redis.call('ZADD', KEYS[2], ARGV[2], tag)
      redis.call('HSET', KEYS[1], tag, note)
      taken[#taken + 1] = message
    else
      redis.call('LPUSH', KEYS[3], message)
      aside = aside + 1
    end
  end
end
return {taken, aside}
"""

ASIDE = "%s.unreadable"
"""The list beside a queue of what was in it and is no message; `SetAside` empties it."""

_MOST_AT_ONCE = 100
_REFUSED_WAIT_S = 1.0


def consumes_alone(app: Any, queue: str) -> bool:
    """Whether the worker of this app consumes this queue, and no other."""
    return set(app.amqp.queues.consume_from) == {queue}


class AtomicReceipt:
    """Over a channel of kombu's Redis transport, whose acks are `transport.QoS`."""

    asked: tuple[str, str, int] | None = None
    _more = True
    _not_before_s = 0.0
    on_set_aside: Callable[[], object] = bool
    unacked_restore_interval = 10.0
    unacked_mutex_expire = 10  # kombu's 300: a worker killed in a sweep would keep others from one

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.noted: set[str] = set()
        self._no_ack_queues: set[str] = set()
        super().__init__(*args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        if no_ack:
            self._no_ack_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)  # type: ignore[misc]

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        queues = list(self.active_queues)
        if len(queues) != 1 or queues[0] in self._no_ack_queues or not self.ack_emulation:
            self.asked = None
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        if monotonic() < self._not_before_s:
            return
        (queue,) = queues
        self.qos.restore_visible(num=self.unacked_restore_limit)
        lists = [self.global_keyprefix + self._q_for_pri(queue, n) for n in self.priority_steps]
        if self._more:
            count = self._room()
            if not count:
                return
            keys = [self.unacked_key, self.unacked_index_key, ASIDE % queue]
            keys = [*(self.global_keyprefix + key for key in keys), *lists]
            command = ("EVAL", TAKE, len(keys), *keys, count, time())
        else:
            # From the end of the list to the end of the list: nothing moves, but it waits.
            count = 0
            wait_s = timeout or self.brpop_timeout
            command = ("BLMOVE", lists[0], lists[0], "RIGHT", "RIGHT", wait_s)
        self.asked = str(command[0]), queue, count
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _room(self: Any) -> int:
        """How many to take now; none until an eighth of the prefetch limit is free."""
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
            full = type(exc).__name__ == "OutOfMemoryError"
            if command != "BLMOVE" or not (full or "unknown command" in str(exc)):
                raise
            # A full Redis refuses to wait, not to hand out, and one before 6.2 cannot wait like
            # this: ask every second.
            self._more, self._not_before_s = True, monotonic() + _REFUSED_WAIT_S
            raise Empty from None
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if command == "BLMOVE":
            # Lists of other priorities have nobody who waits at them.
            self._more = reply is not None or len(self.priority_steps) > 1
            raise Empty
        messages, aside = reply
        self._more = len(messages) + aside == count
        if aside:
            logger.error(
                "%d messages in %s are no Celery messages: set aside in the Redis list %s",
                aside, queue, ASIDE % queue,
            )  # fmt: skip
            self.on_set_aside()
        if not messages:
            raise Empty
        self._deliver_all([json.loads(message) for message in messages], queue)
        return True

    def _deliver_all(self: Any, messages: list[Any], queue: str) -> None:
        tags = [message["properties"]["delivery_tag"] for message in messages]
        self.noted.update(tags)
        done = 0
        try:
            for message in messages:
                done += 1
                try:
                    self.connection._deliver(message, queue)  # noqa: SLF001
                except Exception:
                    if self._is_message(message):
                        raise
                    self._set_aside(message, queue)
        finally:
            for tag in tags[done:]:
                self.noted.discard(tag)
                self.qos.restore_by_tag(tag)

    def _is_message(self: Any, raw: Any) -> bool:
        """Whether kombu can make a message of what it was given, of whatever content."""
        try:
            self.Message(raw, channel=self)
        except Exception:  # noqa: BLE001 - any at all: it depends on what is wrong
            return False
        return True

    def _set_aside(self: Any, raw: Any, queue: str) -> None:
        tag = raw["properties"]["delivery_tag"]
        self.noted.discard(tag)
        with self.conn_or_acquire() as client:
            pipe = client.pipeline()
            pipe.lpush(ASIDE % queue, json.dumps(raw)).hdel(self.unacked_key, tag)
            pipe.zrem(self.unacked_index_key, tag).execute()
        logger.error("1 message in %s cannot be taken apart: set aside in %s", queue, ASIDE % queue)
        self.on_set_aside()

    def _do_restore_message(self: Any, payload: Any, *args: Any, **kwargs: Any) -> None:
        if self.qos.sweeps and isinstance(payload.get("headers"), dict):
            payload["headers"][SWEPT_HEADER] = True
        super()._do_restore_message(payload, *args, **kwargs)  # type: ignore[misc]

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
