"""What one worker's consumer has for the deliver task, made once, and handed to each part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.process import runtime_of
from .borrowed import PAUSE, REQUEST, missing
from .loop import Loop
from .pause.policy import Pauses
from .pause.step import Pausing
from .set_aside import SetAside
from .suspects import Suspects
from .unreadable import Unreadable

_GIVE_BACK_S = 30.0
_ATTRIBUTE = "optly_parts"


@dataclass(frozen=True)
class Parts:
    """The parts, each with what it needs."""

    loop: Loop
    pausing: Pausing
    suspects: Suspects
    unreadable: Unreadable
    set_aside: SetAside
    check_timeout: Callable[[float], None]
    missing: Mapping[str, Sequence[str]]
    """Features that this Celery or kombu does not carry, with what is gone; see `borrowed`."""
    give_back_s: float
    """How long to wait where the retry policy has nothing to say: not longer than a backoff, so
    that the visibility timeout is not reached."""


def parts_of(consumer: Any) -> Parts:
    """This consumer's parts: two workers in one process have each their own.

    Raises:
        SettingsError: the configuration is wrong; a worker that has started has seen that it is
            not.
    """
    found = known_parts(consumer)
    if found is None:
        found = _make(consumer)
        setattr(consumer, _ATTRIBUTE, found)
    return found


def known_parts(consumer: Any) -> Parts | None:
    """The same, where they have been made; None for no consumer as well."""
    return getattr(consumer, _ATTRIBUTE, None)


def _make(consumer: Any) -> Parts:
    runtime = runtime_of(consumer.app)
    settings, dead, loop = runtime.settings, runtime.dead_letters, Loop(consumer)
    gone = missing()
    pauses = Pauses(
        # The request tells how events end, so nothing is learnt without it.
        after=0 if {PAUSE, REQUEST} & gone.keys() else settings.pause_after,
        longest_s=settings.retry_backoff_max,
        clock=time.monotonic,
    )
    return Parts(
        loop=loop,
        pausing=Pausing(
            consumer, loop, pauses, queue=settings.queue, url_override=settings.url_override
        ),
        suspects=Suspects(dead, loop),
        unreadable=Unreadable(consumer, dead, queue=settings.queue),
        set_aside=SetAside(consumer, loop, dead, queue=settings.queue),
        check_timeout=settings.check_visibility_timeout,
        missing=gone,
        give_back_s=min(_GIVE_BACK_S, settings.retry_backoff_max),
    )
