"""The SDK's processor seam: each event is dispatched at once, without a queue or a thread."""

from __future__ import annotations

import logging
from typing import Any

try:
    from optimizely.event.event_factory import EventFactory
    from optimizely.event.event_processor import BaseEventProcessor
    from optimizely.event.user_event import UserEvent
    from optimizely.helpers.enums import NotificationTypes
    from optimizely.logger import NoOpLogger, adapt_logger
    from optimizely.notification_center import NotificationCenter
except ImportError as exc:
    raise ImportError(
        "this part of optly_celery needs the Optimizely SDK: pip install optimizely-sdk"
    ) from exc

from ..errors import NotAnEventError
from ..event_dispatcher import EventDispatcher, count_unexpected, way_for_events
from ..runtime.process import counters
from .plain_json import plain
from .visitor_text import VisitorText

logger = logging.getLogger(__name__)

_LOG_EVENT = NotificationTypes.LOG_EVENT


class EventProcessor(BaseEventProcessor):  # type: ignore[misc]
    """Give this to the SDK as ``event_processor``; `create_client` does.

    Each event is dispatched before ``process`` returns. Event tags that are not JSON are made so,
    see `plain_json.plain`; an event with one that has no JSON form is refused, and counted in
    `optly_celery.stats` with the reason. ``LOG_EVENT`` listeners of ``notification_center``,
    which should be the client's, are called as by the SDK's own processors.
    """

    def __init__(
        self,
        event_dispatcher: Any = EventDispatcher,
        logger: Any = None,
        notification_center: Any = None,
    ) -> None:
        self.event_dispatcher = event_dispatcher
        self.logger = adapt_logger(logger or NoOpLogger())
        if not isinstance(notification_center, NotificationCenter):
            notification_center = NotificationCenter(self.logger)
        self.notification_center = notification_center
        self._visitor_text = VisitorText(self.logger)

    def process(self, user_event: Any) -> None:
        """Dispatch one event. Raises nothing."""
        try:
            self._process(user_event)
            return
        except NotAnEventError as exc:
            _refuse(user_event, exc)
        except Exception as exc:  # noqa: BLE001 - the promise: nothing is raised into ``track``
            count_unexpected(exc)
        # The SDK builds the event a second time for listeners of TRACK and ACTIVATE, in ``track``
        # itself; what could not be built here would raise there.
        if isinstance(user_event, UserEvent):
            user_event.event_tags, user_event.visitor_attributes = None, []

    def _process(self, user_event: Any) -> None:
        if not isinstance(user_event, UserEvent):
            raise NotAnEventError(
                f"{type(user_event).__qualname__} is no event of the SDK", reason="no_user_event"
            )
        listeners = self.notification_center.notification_listeners.get(_LOG_EVENT)
        if not listeners and (dispatch := way_for_events(self.event_dispatcher)):
            event = self._visitor_text.event_of(user_event)
            if event is not None:
                dispatch(event)
                return
        _make_plain(user_event)
        log_event = EventFactory.create_log_event(user_event, self.logger)
        if log_event is None:
            raise NotAnEventError("the SDK made no event of it", reason="no_log_event")
        self.notification_center.send_notifications(_LOG_EVENT, log_event)
        self.event_dispatcher.dispatch_event(log_event)


def _make_plain(user_event: Any) -> None:
    # What the caller handed over is left as it was: the SDK made the event and its attributes.
    if (tags := getattr(user_event, "event_tags", None)) is not None:
        user_event.event_tags = plain(tags)
    for attribute in user_event.visitor_attributes:
        attribute.value = plain(attribute.value)
    user_event.user_id = plain(user_event.user_id)


def _refuse(user_event: Any, exc: NotAnEventError) -> None:
    if new := counters().refuse(exc.reason):
        # The key is the datafile's, so it holds no personal data.
        key = getattr(getattr(user_event, "event", None), "key", "impression")
        logger.warning("refused %d events, the last of them %s: %s", new, key, exc)
