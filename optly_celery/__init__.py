"""Optimizely events through Celery: never lost, never in the way.

``EventDispatcher`` is what the Optimizely SDK is given; everything else is for those who need it.
Importing this package opens nothing and starts nothing.
"""

import importlib
import typing

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
from .runtime.process import close, flush, stats
from .settings.settings import Settings
from .version import __version__

if typing.TYPE_CHECKING:
    from .sdk.client import create_client
    from .sdk.processor import EventProcessor

__all__ = [
    "DeadLetterError",
    "DeliveryError",
    "EventDispatcher",
    "EventProcessor",
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
    "create_client",
    "dispatch",
    "dispatch_event",
    "flush",
    "stats",
]

_WITH_THE_SDK = {"create_client": "sdk.client", "EventProcessor": "sdk.processor"}


def __getattr__(name: str) -> typing.Any:
    # These import the SDK, which a worker does without.
    if name not in _WITH_THE_SDK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_WITH_THE_SDK[name]}", __name__)
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
