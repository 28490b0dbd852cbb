"""What every server of these tests serves: a visit that decides one flag and tracks one event.

``SHOP_CLIENT`` chooses how: ``ours``; ``stock``, the SDK's own dispatcher and processor as its
documentation has them, posting to ``SHOP_COLLECTOR``; or ``closed``, the same closed at exit.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from optimizely.event_dispatcher import EventDispatcher as StockDispatcher
from optimizely.optimizely import Optimizely

from optly_celery import create_client

EVENTS = 2
"""Events of one visit."""

DATAFILE = (Path(__file__).parents[1] / "sdk" / "datafile.json").read_text()


class ToCollector(StockDispatcher):
    """The SDK's dispatcher; only the address is another."""

    @staticmethod
    def dispatch_event(event):
        event.url = os.environ["SHOP_COLLECTOR"]
        StockDispatcher.dispatch_event(event)


def _made():
    kind = os.environ.get("SHOP_CLIENT", "ours")
    if kind == "ours":
        return create_client(datafile=DATAFILE)
    made = Optimizely(DATAFILE, event_dispatcher=ToCollector)
    if kind == "closed":
        atexit.register(made.close)
    return made


client = _made()


def visit(visitor: str) -> None:
    user = client.create_user_context(visitor, {"plan": "gold"})
    assert user.decide("checkout").variation_key == "on"
    user.track_event("purchase", {"revenue": 4200})
