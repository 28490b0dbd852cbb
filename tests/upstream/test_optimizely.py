"""The Optimizely SDK: its events as text, and its client that is built later."""

from __future__ import annotations

import pytest

from .borrowed import rows, takes

SEEN = "optimizely-sdk 5.7.0"
FACTORY = "optimizely.event.event_factory:EventFactory"


def _each_argument_has_a_look() -> None:
    checked = ("event_dispatcher", "error_handler", "logger", "notification_center")
    for name in (*checked, "config_manager", "event_processor"):
        takes(f"optimizely.helpers.validator:is_{name}_valid")()


ROWS = [
    *rows(
        FACTORY, where="sdk/visitor_text.py", seen=SEEN,
        gone="nothing: each event is then written by the SDK, at twice the cost",
        names={"_create_visitor": ("a visitor as the SDK makes it", takes(
            f"{FACTORY}._create_visitor", "event", "logger"))},
    ),
    *rows(
        FACTORY, where="sdk/visitor_text.py sdk/processor.py", seen=SEEN,
        gone="see what BatchEventProcessor calls in its flush",
        names={"": "the SDK's events", "create_log_event": (
            "an event as the SDK makes it",
            takes(f"{FACTORY}.create_log_event", "user_events", "logger"))},
    ),
    *rows(
        "optimizely.event.user_event", where="sdk/visitor_text.py sdk/processor.py", seen=SEEN,
        gone="take whatever create_log_event takes",
        names={"UserEvent": "whether it is an event"},
    ),
    *rows(
        "optimizely.logger", where="sdk/processor.py", seen=SEEN,
        gone="pass on what was given",
        names={"NoOpLogger": "without a logger", "adapt_logger": "with one of its own"},
    ),
    *rows(
        "optimizely.helpers", where="sdk/client.py", seen=SEEN,
        gone="leave the look out: the SDK logs what it does not take, and its client is of no use",
        names={"validator": ("whether the SDK would take it", _each_argument_has_a_look)},
    ),
    *rows(
        "optimizely.version", where="sdk/client.py", seen=SEEN,
        gone="importlib.metadata.version('optimizely-sdk')",
        names={"__version__": "named where an argument is refused"},
    ),
    *rows(
        "optimizely.notification_center:NotificationCenter", where="sdk/processor.py", seen=SEEN,
        gone="take the SDK's own way for each event: it asks the listeners itself",
        names={"notification_listeners": "whether anybody listens to LOG_EVENT"},
    ),
    *rows(
        "optimizely", where="demo/shop.py", seen=SEEN,
        gone="leave out what the tour tells of the SDK's own threads",
        names={"helpers.sdk_settings": "the tour's client needs no network"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
