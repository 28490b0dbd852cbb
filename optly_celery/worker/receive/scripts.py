"""What moves a message within Redis, in one step, so that a kill finds it in one place.

Redis does not roll a script back. So where a message goes is noted before it leaves where it was,
and what was noted is taken back if that fails. A full Redis refuses a script whose first write
needs memory, and lets pass what follows one that does not: hence a ``ZREM`` of nothing. The time is
Redis's own (``TIME``), which all workers share.
"""

from __future__ import annotations

from typing import Any

ASIDE = "%s.unreadable"
"""The list beside a queue of what was in it and is no message; `SetAside` empties it."""

MOST_BYTES = 64 * 1024 * 1024
"""What is larger never leaves Redis: no event is, and a worker's memory may not be."""

# KEYS: unacked, unacked_index, where to put what is too large, then the queue's lists by priority.
# ARGV: how many at most, the queue as JSON, what tags begin with, the most bytes.
# Nothing is read of a message here: a second reader would have another idea of what can be read. It
# is noted in kombu's own form, under a tag that no other has, and as if it had been published to
# this queue by name: there it is given back, whatever its sender wrote. A client that did not get
# its answer may ask again, with the same tags: then nothing is taken.
TAKE = """
local taken, aside, trouble = {}, 0, nil
local now = redis.call('TIME')
local at = now[1] .. '.' .. string.format('%06d', now[2])
for i = 4, #KEYS do
  while #taken + aside < tonumber(ARGV[1]) do
    local message = redis.pcall('LINDEX', KEYS[i], -1)
    if type(message) ~= 'string' then
      if message then trouble = message end
      break
    end
    local tag, known = ARGV[3] .. #taken, false
    local ok, why = pcall(function()
      redis.call('ZREM', KEYS[2], '')
      if #message > tonumber(ARGV[4]) then
        redis.call('RPOPLPUSH', KEYS[i], KEYS[3])
        aside = aside + 1
      else
        local note = '[' .. message .. ', "", ' .. ARGV[2] .. ']'
        if redis.call('HSETNX', KEYS[1], tag, note) == 0 then
          known = true
          error('ERR these tags were given out before')
        end
        redis.call('ZADD', KEYS[2], at, tag)
        redis.call('RPOP', KEYS[i])
        taken[#taken + 1] = message
      end
    end)
    if not ok then
      if not known then
        redis.pcall('HDEL', KEYS[1], tag)
        redis.pcall('ZREM', KEYS[2], tag)
      end
      trouble = type(why) == 'table' and why or redis.error_reply(why)
      break
    end
  end
end
if trouble and #taken + aside == 0 then return trouble end
return {taken, aside}
"""

# KEYS: unacked, unacked_index, where to go (each of the lists).
# ARGV: tag, its note or '' for any, the command, what the last of the keys, a set, is to know of or
# '', and what to put there: if nothing, the note itself.
# What is not unacked any more, or noted anew, is somebody else's.
MOVE = """
local note = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], '')
if not note then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 0
end
if ARGV[2] ~= '' and ARGV[2] ~= note then return 0 end
local last = #KEYS
if ARGV[4] ~= '' then
  redis.call('SADD', KEYS[last], ARGV[4])
  last = last - 1
end
for i = 3, last do
  redis.call(ARGV[3], KEYS[i], ARGV[5] or note)
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

# KEYS: unacked, unacked_index. ARGV: tag, note. For what has been popped already.
ADOPT = """
redis.call('ZREM', KEYS[2], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[1])
"""

# KEYS: unacked. ARGV: tag, the most bytes. Answers with the note, or 1 if that is too large.
NOTE = """
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) > tonumber(ARGV[2]) then return 1 end
return redis.call('HGET', KEYS[1], ARGV[1])
"""

# KEYS: unacked_index. ARGV: how many seconds ago, how many at most. Oldest first.
OVERDUE = """
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] - ARGV[1], 'LIMIT', 0, ARGV[2])
"""

# KEYS: unacked_index. ARGV: tag. It is looked at again when it is overdue again.
LATER = """
redis.call('ZREM', KEYS[1], '')
return redis.call('ZADD', KEYS[1], 'XX', redis.call('TIME')[1], ARGV[1])
"""


def run(channel: Any, script: str, keys: tuple[str, ...], *args: object) -> Any:
    """Run a script over a kombu channel of Redis, which may put a prefix before its keys.

    Raises:
        Exception: whatever redis-py raises.
    """
    names = [channel.global_keyprefix + key for key in keys]
    with channel.conn_or_acquire() as client:
        # kombu's own client puts the prefix before the keys of some commands, not of this one.
        return client.execute_command("EVAL", script, len(names), *names, *args)
