"""Events of a database transaction: dispatched once it has committed, never if it rolls back.

Django keeps what waits in memory, so a process that is killed after the database has committed
and before the event is enqueued, some milliseconds, loses the event. The order cannot be turned
round without sending events of transactions that fail.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from django.db import connections, transaction

from ...sdk.processor import EventProcessor


class OnCommitProcessor(EventProcessor):
    """As `EventProcessor`; inside a transaction events go through an `OnCommitDispatcher`.

    Only then, so that outside of one an event has the short way that `EventProcessor` knows.
    """

    def __init__(
        self, using: str, event_dispatcher: Any, logger: Any = None, notification_center: Any = None
    ) -> None:
        super().__init__(event_dispatcher, logger, notification_center)
        dispatcher = OnCommitDispatcher(using, event_dispatcher)
        self._using = using
        self._on_commit = EventProcessor(dispatcher, logger, self.notification_center)

    def process(self, user_event: Any) -> None:
        """Dispatch one event, now or on commit. Raises nothing."""
        if connections[self._using].in_atomic_block:
            self._on_commit.process(user_event)
        else:
            super().process(user_event)


class OnCommitDispatcher:
    """Give this to the SDK as ``event_dispatcher``.

    Outside of a transaction of the database ``using`` it is ``dispatcher``. Inside one, events
    wait for the outermost ``atomic`` to commit and are then dispatched once each, in order; those
    of an inner ``atomic`` that was rolled back are not. Savepoints made by hand do not count, nor
    does manual transaction management: Django does not tell when those end.
    """

    def __init__(self, using: str, dispatcher: Any) -> None:
        self._using = using
        self._dispatcher = dispatcher

    def dispatch_event(self, event: Any) -> None:
        """Dispatch one event of the SDK, now or on commit. Opens no connection to a database."""
        # Not get_autocommit(), which would connect. In a coroutine this is another connection
        # than that of synchronous code, and never inside a transaction, which Django allows
        # in synchronous code alone.
        if connections[self._using].in_atomic_block:
            kept = _kept(event)

            # A function, no partial: Django logs its __qualname__ when it raises.
            def dispatch_later() -> None:
                self._dispatcher.dispatch_event(kept)

            # Robust: whatever happens there, the other callbacks of this commit are called.
            transaction.on_commit(dispatch_later, using=self._using, robust=True)
        else:
            self._dispatcher.dispatch_event(event)


def _kept(event: Any) -> Any:
    """An event as it is now: its tags are a dictionary of the caller's, who may change it."""
    try:
        return SimpleNamespace(
            url=event.url,
            params=json.loads(json.dumps(event.params)),
            http_verb=getattr(event, "http_verb", None),
            headers=getattr(event, "headers", None),
        )
    except (AttributeError, TypeError, ValueError, RecursionError):
        return event  # it is no event, which is the dispatcher's to count
