"""The SDK's dispatcher seam: an event becomes a Celery task, or is counted."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from .apps import current_app
from .errors import NotAnEventError, OutboxError, PublishError, SettingsError
from .event import Event
from .runtime import Runtime, runtime_of, tally

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
        except Exception as exc:  # noqa: BLE001 - the promise: nothing is raised
            _count_unexpected(exc)

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
        except Exception as exc:  # noqa: BLE001 - the promise: nothing is raised
            _count_unexpected(exc)


dispatch_event = EventDispatcher.dispatch_event
dispatch = EventDispatcher.dispatch


def _enqueue(url: object, params: object, verb: object, headers: object) -> None:
    try:
        event = Event.of(url, params, verb, headers)
    except NotAnEventError as exc:
        if new := tally().refuse(exc.reason):
            logger.warning("refused %d events: %s", new, exc)
        return
    try:
        runtime = runtime_of(current_app())
        settings = runtime.settings
        publisher = runtime.publisher
    except SettingsError as exc:
        _drop("bad_settings", exc)
        return
    if not settings.enabled:
        tally().drop("disabled")
        return
    eager = runtime.is_eager
    always = settings.delivery == "outbox" and not eager
    store = runtime.store if always else runtime.opened_store
    if store is not None and (always or store.relay.in_trouble):
        try:
            store.put(event)
            tally().store()
            return
        except OutboxError as exc:
            # Full is full; and a broker in trouble would only hold up the caller.
            if exc.reason == "outbox_full" or store.relay.in_trouble:
                _drop(exc.reason, exc)
                return
    try:
        publisher.publish(event)
        tally().publish()
    except PublishError as exc:
        if eager or not _stored_instead(runtime, event, exc):
            _drop(exc.reason, exc)


def _stored_instead(runtime: Runtime, event: Event, exc: PublishError) -> bool:
    store = runtime.store
    if store is None:
        return False
    # From now on events are stored at once, until the relay has had one taken.
    store.relay.trouble(exc)
    try:
        store.put(event)
    except OutboxError:
        return False
    tally().store()
    return True


def _drop(reason: str, exc: Exception) -> None:
    if new := tally().drop(reason):
        logger.error("dropped %d events: %s: %s", new, reason, exc)


def _count_unexpected(exc: Exception) -> None:
    if new := tally().drop("unexpected_error"):
        # Where it happened, but not its text: that may quote what was dispatched.
        frames = "".join(traceback.format_tb(exc.__traceback__))
        logger.error("dropped %d events: unexpected %s:\n%s", new, type(exc).__name__, frames)
