"""A collector that goes away in the middle, and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

from .server import Answer


class Outage:
    """Answers 503 for ``lasts_s`` from request number ``starts_at`` on; a server's ``choose``.

    Driven by what arrives, so it is in the middle however fast the machine is.
    """

    def __init__(
        self, *, starts_at: int, lasts_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._starts_at = starts_at
        self._lasts_s = lasts_s
        self._clock = clock
        self._requests = 0
        self._ends_at: float | None = None

    def __call__(self, _method: str, _target: str, _body: bytes) -> Answer | None:
        """503 while the outage lasts, otherwise no opinion."""
        self._requests += 1
        if self._requests == self._starts_at:
            self._ends_at = self._clock() + self._lasts_s
        is_on = self._ends_at is not None and self._clock() < self._ends_at
        return Answer(503) if is_on else None
