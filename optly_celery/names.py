"""Names that more than one room, or another program, relies on."""

from __future__ import annotations

DELIVER_TASK = "optly_celery.deliver"
"""The task's name: with its arguments, a public wire format."""

ENQUEUED_AT_HEADER = "optly_enqueued_at"
"""Message header: when the event was first enqueued, in seconds since the epoch."""

US_HOST = "logx.optimizely.com"
EU_HOST = "eu.logx.optimizely.com"

REFUSED_HEADER = "optly_refused"
"""Message header: how many of the event's parts earlier attempts have kept as dead letters."""

PARTS_HEADER = "optly_parts"
"""Message header: how many visitors are in each of the parts into which earlier attempts have
split the event, in order; absent where it is whole."""

RECEIVED_AT_HEADER = "optly_received_at"
"""Task header that a worker sets: when it received the message, by ``time.monotonic``."""

SWEPT_HEADER = "optly_swept"
"""Message header: it was in the hands of a worker that has died, perhaps of it."""

PAUSES_COMMAND = "optimizely_pauses"
"""Remote control command of a worker, which `status` asks: what it has paused."""
