"""The SDK's dispatcher seam: an event becomes a Celery task, or is counted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .errors import NotAnEventError, PublishError
from .event import Event
from .runtime import current_app, runtime_of, tally

logger = logging.getLogger(__name__)


class EventDispatcher:
    """Give this to the SDK as ``event_dispatcher``, as the class or as an instance.

    All configuration is the Celery app's. Enqueues each event as a deliver task and returns;
    a worker POSTs it.
    """

    @staticmethod
    def dispatch_event(event: Any) -> None:
        """Enqueue one event of the SDK: any object with url, params, http_verb and headers.

        Raises nothing, and returns within ``optly_publish_timeout`` (0.5 s). When it has
        returned, the event is in the broker, or counted in `optly_celery.stats` as dropped or
        refused, with the reason, and logged once per reason and minute.
        """
        try:
            _enqueue(
                getattr(event, "url", None),
                getattr(event, "params", None),
                getattr(event, "http_verb", None),
                getattr(event, "headers", None),
            )
        except Exception:
            _count_unexpected()

    @staticmethod
    def dispatch(
        url: str,
        params: Mapping[str, Any],
        verb: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As `dispatch_event`, for an event given by its parts."""
        try:
            _enqueue(url, params, verb, headers)
        except Exception:
            _count_unexpected()


dispatch_event = EventDispatcher.dispatch_event
dispatch = EventDispatcher.dispatch


def _enqueue(url: object, params: object, verb: object, headers: object) -> None:
    try:
        event = Event.of(url, params, verb, headers)
    except NotAnEventError as exc:
        if new := tally().refuse(exc.reason):
            logger.warning("refused %d events: %s", new, exc)
        return
    runtime = runtime_of(current_app())
    if not runtime.settings.enabled:
        tally().drop("disabled")
        return
    try:
        runtime.publisher.publish(event)
    except PublishError as exc:
        if new := tally().drop(exc.reason):
            logger.error("dropped %d events: %s: %s", new, exc.reason, exc)
        return
    tally().publish()


def _count_unexpected() -> None:
    # The traceback names a fault of ours or of the settings; frames are logged without values.
    if new := tally().drop("unexpected_error"):
        logger.exception("dropped %d events by an unexpected error", new)
