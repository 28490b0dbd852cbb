"""What happens to events, told to whoever listens: for metrics, in the process that dispatches.

`paused` and `resumed` are told by workers.

Celery's own kind of signal: ``connect`` takes a function of keyword arguments, and keeps it
weakly unless ``weak=False``. Receivers run where the thing happens, `relayed` in the relay's
thread and the others within ``dispatch_event``, so they have to be quick; what one raises is
logged and goes no further. Nothing in them is an event's data.

    @optly_celery.signals.dropped.connect(weak=False)
    def count(reason, **_):
        metrics.increment("optimizely.dropped", tags=[reason])
"""

from __future__ import annotations

from typing import Any

from celery.utils.dispatch import Signal

accepted = Signal(name="accepted", providing_args=set())
"""An event was taken over. One of `published`, `stored` and `dropped` follows."""

published = Signal(name="published", providing_args=set())
"""The broker has an event that was dispatched just now."""

stored = Signal(name="stored", providing_args={"outbox"})
"""The outbox has an event. ``outbox`` is as in `optly_celery.stats`: rows, bytes, oldest_age_s."""

relayed = Signal(name="relayed", providing_args={"events", "outbox"})
"""The broker has taken ``events`` events from an outbox; ``outbox`` is what waits after that."""

dropped = Signal(name="dropped", providing_args={"reason"})
"""An accepted event is lost, for the reason that `optly_celery.stats` counts."""

refused = Signal(name="refused", providing_args={"reason"})
"""What was dispatched was no event."""

paused = Signal(name="paused", providing_args={"host", "reason"})
"""A worker has stopped posting to ``host``, for a reason as in dead letters; its main process."""

resumed = Signal(name="resumed", providing_args={"host", "reason"})
"""A worker posts to ``host`` again; ``reason`` is why it had stopped; its main process."""


def tell(signal: Signal, **fields: Any) -> None:
    """Send a signal. A field that is a function is called first, and only if anybody listens."""
    if signal.receivers:
        known = {k: v() if callable(v) else v for k, v in fields.items()}
        signal.send(sender=None, **known)
