"""What billiard copies of a traceback for each failure: once for each function, not once more."""

from __future__ import annotations

import functools
from typing import Any

import billiard.einfo

_MOST_FUNCTIONS = 512


def share_copies() -> None:
    """Have billiard's copies of tracebacks share those of their functions' code, in this process.

    Since Python 3.11 such a copy lists the position of every instruction: 0.3 MB for Celery's
    tracer alone, made anew whenever a task ends in an error, whatever the pool. In an outage all
    threads fail at once. The copies are only ever read, and are equal; a billiard without this
    class attribute goes on as before.
    """
    frame: Any = getattr(billiard.einfo, "_Frame", None)
    copy = getattr(frame, "Code", None)
    if isinstance(copy, type):
        frame.Code = staticmethod(functools.lru_cache(_MOST_FUNCTIONS)(copy))
