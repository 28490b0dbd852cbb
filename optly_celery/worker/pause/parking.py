"""Messages set aside in Redis while their host is paused, so that others are not held up.

A host's messages are in the list ``<queue>.parked.<host>``, newest first, in kombu's own form; the
set ``<queue>.parked`` names the hosts. Each move is one script: whatever is killed in between,
a message is in the queue, unacked or parked, and in one of them.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable
from typing import Any

from kombu.transport import virtual

from ...broker_errors import in_words
from ..receive import notes
from ..receive.scripts import ASIDE, MOVE, TAKE, run

logger = logging.getLogger(__name__)

HOSTS = "%s.parked"
PARKED = "%s.parked.%s"

# KEYS: the host's list, the queue. ARGV: how many at most.
_UNPARK = """
local moved = 0
while moved < tonumber(ARGV[1]) and redis.call('RPOPLPUSH', KEYS[1], KEYS[2]) do
  moved = moved + 1
end
return moved
"""

# KEYS: the set of hosts. Answers with hosts and counts, and forgets those with none.
_COUNT = """
local found = {}
for _, host in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local count = redis.pcall('LLEN', KEYS[1] .. '.' .. host)
  if count == 0 then
    redis.call('SREM', KEYS[1], host)
  elseif type(count) == 'number' then
    found[#found + 1] = host
    found[#found + 1] = count
  end
end
return found
"""


def can_park(channel: Any) -> bool:
    """Whether this kombu channel's broker is Redis, with acks."""
    return hasattr(channel, "unacked_key") and bool(getattr(channel, "ack_emulation", False))


def park(message: Any, queue: str, host: str) -> bool:
    """Move an unacked message to its host's list, and have kombu forget it; else it stays unacked.

    Returns whether that was possible.
    """
    channel = message.channel
    if not can_park(channel):
        return False
    keys = (*notes.keys_of(channel), PARKED % (queue, host), HOSTS % queue)
    try:
        text = json.dumps(message._raw)  # noqa: SLF001 - what kombu itself notes as unacked
        run(channel, MOVE, keys, message.delivery_tag, "", "LPUSH", host, text)
    except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
        logger.warning("a message could not be parked (%s)", in_words(exc))
        return False
    virtual.QoS.ack(channel.qos, message.delivery_tag)
    message._state = "REJECTED"  # noqa: SLF001
    return True


def take(channel: Any, queue: str, source: str, limit: int = 1) -> list[Any]:
    """Receive messages from a list, the queue's own or a host's, oldest first."""
    lists = notes.lists_of(channel, queue) if source == queue else [source]
    tags = f"{uuid.uuid4().hex}."
    items, aside = run(
        channel,
        TAKE,
        (*notes.keys_of(channel), ASIDE % queue, *lists),
        *notes.arguments(queue, tags, limit),
    )
    if aside:
        notes.told(channel, queue, aside, "too large")
    made = (notes.message_of(channel, queue, f"{tags}{n}", item) for n, item in enumerate(items))
    return [message for message in made if message is not None]


def next_of(channel: Any, queue: str, sources: Iterable[str]) -> Any:
    """Receive one message from the first of the sources that has any; else None."""
    for source in sources:
        if can_park(channel):
            found = next(iter(take(channel, queue, source)), None)
        else:
            found = channel.basic_get(source, no_ack=False)
        if found is not None:
            return found
    return None


def unpark(channel: Any, queue: str, host: str, limit: int) -> int:
    """Move messages of a host back to the queue, oldest first; how many."""
    return int(run(channel, _UNPARK, (PARKED % (queue, host), queue), limit))


def counts(channel: Any, queue: str) -> dict[str, int]:
    """How many messages of which hosts are parked."""
    found = run(channel, _COUNT, (HOSTS % queue,))
    # Whatever somebody has put into the set, it hides no other host.
    names = (
        h.decode(errors="backslashreplace") if isinstance(h, bytes) else str(h) for h in found[::2]
    )
    return dict(zip(names, map(int, found[1::2]), strict=True))
