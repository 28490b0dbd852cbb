"""Lets no process fork in the middle of a relay's round.

kombu opens connections under locks of its own, and imports its transports; a child that was forked
then would wait for ever for a thread that it does not have.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from typing import Protocol

_WAIT_S = 5.0  # a round takes milliseconds, but with a broker that hangs


class HasRounds(Protocol):
    """What a fork waits for: it holds ``rounds`` whenever it talks to the broker."""

    rounds: threading.Lock


_watched: weakref.WeakSet[HasRounds] = weakref.WeakSet()
_held: list[threading.Lock] = []


def wait_for(relay: HasRounds) -> None:
    """Have forks of this process wait until this relay has ended its round, for a while."""
    _watched.add(relay)
    _set_hooks()


@functools.cache
def _set_hooks() -> None:
    os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_forget)


def _pause() -> None:
    _held.extend(r.rounds for r in list(_watched) if r.rounds.acquire(timeout=_WAIT_S))


def _resume() -> None:
    while _held:
        _held.pop().release()


def _forget() -> None:
    _watched.clear()
    _held.clear()
