"""What is here for an older Celery or kombu alone; raising a floor deletes its part.

Elsewhere, as part of what stays: `DeliverRequest.on_timeout` (Celery 5.4 would delete the message
there), `DeliverTask.retry` (before 5.6 countdowns were shared by all threads of a pool), and
`Pausing`, which selects a queue that a person added (before 5.7 Celery forgot to).
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import celery
import kombu
from celery.events import EventDispatcher

logger = logging.getLogger(__name__)

# Superfluous from kombu 5.7 on, which knows them: of what a channel's options are.
OPTIONS = ("unacked_restore_interval",)


class NewerChannel:
    """What newer kombu channels have: a base after kombu's own, which counts where it has it."""

    brpop_timeout = 1.0  # superfluous from kombu 5.6 on

    def _flush_brpop_reauth(self) -> None:
        """Superfluous from kombu 5.7 on."""


def _flush_copies(dispatcher: EventDispatcher) -> None:
    """As `EventDispatcher.flush` of Celery 5.7, which keeps what is added meanwhile."""
    with dispatcher.mutex:
        for group, events in dispatcher._group_buffer.items():  # noqa: SLF001
            if batch := list(events):
                dispatcher._publish(batch, dispatcher.producer, f"{group}.multi")  # noqa: SLF001
                del events[: len(batch)]


# Superfluous from Celery 5.7 on (celery/celery#10434): `EventDispatcher.flush`.
flush = EventDispatcher.flush if celery.VERSION[:2] >= (5, 7) else _flush_copies


def leave_if_silent(channel: Any) -> None:
    """Drop a connection that has not answered for long; to be called every few seconds.

    Superfluous from kombu 5.7 on, which does it itself, if a little later. Before, it would wait
    for ever.
    """
    waits_s = channel.brpop_timeout + channel.health_check_interval
    waiting = channel.asked and channel._in_poll  # noqa: SLF001
    if waiting and monotonic() - channel._brpop_sent_at >= waits_s:  # noqa: SLF001
        logger.warning("the broker has not answered for %g s: connecting anew", waits_s)
        waiting.disconnect()


def warn_of_silence() -> None:
    """Superfluous from kombu 5.7 on: a worker's loop notices there."""
    if kombu.VERSION[:2] < (5, 7):
        logger.warning(
            "with kombu %s this worker may not notice that its broker is gone without a word: "
            "Celery 5.7 has one that does",
            kombu.__version__,
        )
