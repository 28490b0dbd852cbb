"""The worker's own loop: where everything that touches a message or its connection runs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from ..broker_errors import in_words

logger = logging.getLogger(__name__)

_GIVE_BACK_AGAIN_S = 5.0


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

    def give_back(self, message: Any, name: str = "a message") -> None:
        """Give an unacked message back to its queue, and try again until that is possible."""
        try:
            message.reject(requeue=True)
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            # Whatever the broker's trouble is, the message is still unacked there. It comes back
            # by this, by the end of this worker, or by the visibility timeout.
            logger.warning("%s could not be given back yet (%s)", name, in_words(exc))
            self.later(_GIVE_BACK_AGAIN_S, functools.partial(self.give_back, message, name))

    @property
    def _is_green(self) -> bool:
        return bool(getattr(self._consumer.pool, "is_green", False))
