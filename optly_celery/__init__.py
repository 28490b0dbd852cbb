"""Optimizely events through Celery: never lost, never in the way.

``EventDispatcher`` is what the Optimizely SDK is given; everything else is for those who need it.
Importing this package opens nothing and starts nothing.
"""

from .errors import (
    DeadLetterError,
    DeliveryError,
    NoSuchDeadLetterError,
    NotAnEventError,
    OptlyCeleryError,
    OutboxError,
    PermanentDeliveryError,
    PublishError,
    SettingsError,
    TransientDeliveryError,
)
from .event_dispatcher import EventDispatcher, dispatch, dispatch_event
from .runtime import close, flush, stats
from .settings import Settings
from .version import __version__

__all__ = [
    "DeadLetterError",
    "DeliveryError",
    "EventDispatcher",
    "NoSuchDeadLetterError",
    "NotAnEventError",
    "OptlyCeleryError",
    "OutboxError",
    "PermanentDeliveryError",
    "PublishError",
    "Settings",
    "SettingsError",
    "TransientDeliveryError",
    "__version__",
    "close",
    "dispatch",
    "dispatch_event",
    "flush",
    "stats",
]
