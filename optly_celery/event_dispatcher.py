"""The SDK's dispatcher seam: an event becomes a Celery task, or is counted."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from .celery_app import current_app
from .errors import NotAnEventError, OutboxError, PublishError, SettingsError
from .event.event import Event
from .runtime.process import counters, runtime_of
from .runtime.runtime import Runtime

logger = logging.getLogger(__name__)

_diverted_to: Callable[[Event], None] | None = None


class EventDispatcher:
    """Give this to the SDK as ``event_dispatcher``, as the class or as an instance.

    All configuration is the Celery app's. Enqueues each event as a deliver task and returns;
    a worker POSTs it.
    """

    @staticmethod
    def dispatch_event(event: Any) -> None:
        """Enqueue one event of the SDK: any object with url, params, http_verb and headers.

        Raises nothing, and returns within ``optly_publish_timeout`` (0.5 s). When it has
        returned, the event is in the broker or in the outbox, or counted in `optly_celery.stats`
        as dropped or refused, with the reason, and logged once per reason and minute.
        """
        _dispatch(event, current_app)

    @staticmethod
    def dispatch(
        url: str,
        params: Mapping[str, Any],
        verb: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As `dispatch_event`, for an event given by its parts."""
        event = SimpleNamespace(url=url, params=params, http_verb=verb, headers=headers)
        _dispatch(event, current_app)


class AppDispatcher:
    """As `EventDispatcher`, through the Celery app that ``app`` returns instead of the current one.

    For processes that have several.
    """

    def __init__(self, app: Callable[[], Any]) -> None:
        self._app = app

    def dispatch_event(self, event: Any) -> None:
        """As `EventDispatcher.dispatch_event`."""
        _dispatch(event, self._app)

    def accept(self, event: Event) -> None:
        """As `dispatch_event`, for an event that has been checked already."""
        _take(event, self._app)


dispatch_event = EventDispatcher.dispatch_event
dispatch = EventDispatcher.dispatch


@contextlib.contextmanager
def diverted(to: Callable[[Event], None]) -> Iterator[None]:
    """Hand what is dispatched in this process to ``to`` instead, for tests; counted as published.

    Before Celery's configuration is looked at, so that none is needed.
    """
    global _diverted_to
    before, _diverted_to = _diverted_to, to
    try:
        yield
    finally:
        _diverted_to = before


def way_for_events(dispatcher: Any) -> Callable[[Event], None] | None:
    """What takes events that have been checked already, instead of ``dispatcher``.

    None where that is not one of ours.
    """
    if type(dispatcher) is AppDispatcher:
        return dispatcher.accept
    return _take if dispatcher.dispatch_event is dispatch_event else None


def _take(event: Event, app: Callable[[], Any] = current_app) -> None:
    try:
        _accept(event, app)
    except Exception as exc:  # noqa: BLE001 - the promise: nothing is raised
        count_unexpected(exc)


def _dispatch(event: Any, app: Callable[[], Any]) -> None:
    try:
        try:
            checked = Event.of(
                getattr(event, "url", None),
                getattr(event, "params", None),
                getattr(event, "http_verb", None),
                getattr(event, "headers", None),
            )
        except NotAnEventError as exc:
            if new := counters().refuse(exc.reason):
                logger.warning("refused %d events: %s", new, exc)
        else:
            _accept(checked, app)
    except Exception as exc:  # noqa: BLE001 - the promise: nothing is raised
        count_unexpected(exc)


def _accept(event: Event, app: Callable[[], Any]) -> None:
    divert = _diverted_to
    if divert is not None:
        divert(event)
        counters().publish()
        return
    try:
        runtime = runtime_of(app())
        settings = runtime.settings
        publisher = runtime.publisher
    except SettingsError as exc:
        _drop("bad_settings", exc)
        return
    if not settings.enabled:
        counters().drop("disabled")
        return
    eager = runtime.is_eager
    always = settings.delivery == "outbox" and not eager
    store = runtime.store if always else runtime.opened_store
    if store is not None and (always or store.relay.in_trouble):
        try:
            store.put(event)
            counters().store(store.waiting)
            return
        except OutboxError as exc:
            # Full is full; and a broker in trouble would only hold up the caller.
            if exc.reason == "outbox_full" or store.relay.in_trouble:
                _drop(exc.reason, exc)
                return
    try:
        publisher.publish(event)
        counters().publish()
    except PublishError as exc:
        if eager or not _stored_instead(runtime, event, exc):
            _drop(exc.reason, exc)


def _stored_instead(runtime: Runtime, event: Event, exc: PublishError) -> bool:
    store = runtime.store
    if store is None:
        return False
    # From now on events are stored at once, until the relay has had one taken.
    store.relay.broker_failed(exc)
    try:
        store.put(event)
    except OutboxError:
        return False
    counters().store(store.waiting)
    return True


def _drop(reason: str, exc: Exception) -> None:
    if new := counters().drop(reason):
        logger.error("dropped %d events: %s: %s", new, reason, exc)


def count_unexpected(exc: Exception) -> None:
    """Count an event that a fault of this package, or of what it calls, has cost."""
    if new := counters().drop("unexpected_error"):
        # Where it happened, but not its text: that may quote what was dispatched.
        frames = "".join(traceback.format_tb(exc.__traceback__))
        logger.error("dropped %d events: unexpected %s:\n%s", new, type(exc).__name__, frames)
