"""How one go at an event ended, and what that says about its host. Pure."""

from __future__ import annotations

import enum
from typing import Any

from ...deliver.retry import Verdict, verdict

# Transient failures that come without a status.
_NO_ANSWER = frozenset({"timeout", "connection_error", "broken_answer", "time_limit"})


class Ended(enum.Enum):
    """How one go at an event ended, as far as its host is concerned."""

    ANSWERED = "answered"  # delivered, or refused for the event's own sake
    FAILED = "failed"  # a transient failure
    NOT_TRIED = "not tried"


def how_ended(error: Any) -> Ended:
    """What the error that an attempt ended with says about the event's host."""
    status, reason = getattr(error, "status", None), getattr(error, "reason", None)
    if status is not None:
        transient = verdict(status) is Verdict.TRANSIENT
        return Ended.FAILED if transient else Ended.ANSWERED
    return Ended.FAILED if reason in _NO_ANSWER else Ended.NOT_TRIED
