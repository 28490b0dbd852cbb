"""What a worker says of its pauses: in its log, by a signal, to monitors and to `status`."""

from __future__ import annotations

import logging
from typing import Any

from ... import signals
from .policy import Change, Pauses

logger = logging.getLogger(__name__)


def tell(change: Change) -> tuple[str, dict[str, str]]:
    """Log a change and send its signal; gives the worker event to be sent, and its fields."""
    word = "paused" if change.paused else "resumed"
    logger.warning("deliveries to %s %s: %s", change.host, word, change.reason)
    told = {"host": change.host, "reason": change.reason}
    signals.tell(signals.paused if change.paused else signals.resumed, **told)
    return f"worker-optimizely-{word}", told


def report(pauses: Pauses, queue: str, *, wanted: bool) -> list[dict[str, Any]]:
    """As `Pausing.report`."""
    paused = pauses.paused()
    return [
        {
            "host": host,
            "reason": reason,
            "state": "paused" if host in paused else "resuming",
            "queue": queue,
            "wanted": wanted,
        }
        for host, reason in sorted(pauses.troubled().items())
    ]
