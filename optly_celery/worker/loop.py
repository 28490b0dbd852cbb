"""The worker's own loop: where everything that touches a message or its connection runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Loop:
    """Has things done in a consumer's loop; may be called from any thread of the pool."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def soon(self, call: Callable[[], object]) -> None:
        """Call when the loop turns next."""
        consumer = self._consumer
        if consumer.hub is None and self._is_green:
            call()  # the loop would come to it after two seconds; greenlets do not collide
        else:
            consumer.call_soon(call)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call once, in so many seconds."""
        if self._is_green:
            self._consumer.timer.call_after(seconds, call)
        else:
            # Not the timer itself: the loop's is a heap without a lock.
            self._consumer.call_soon(self._consumer.timer.call_after, seconds, call)

    @property
    def _is_green(self) -> bool:
        return bool(getattr(self._consumer.pool, "is_green", False))
