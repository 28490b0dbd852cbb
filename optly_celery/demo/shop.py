"""Visitors of a made-up shop, decided on and tracked by the real Optimizely SDK."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

from ..event.payload import uuids_of
from ..event_dispatcher import EventDispatcher
from .errors import not_installed

EVENTS_PER_VISITOR = 2

_FLAG = "new_checkout"
_PLANS = ("free", "team", "business")


class Stopwatch:
    """A dispatcher that hands each event to `EventDispatcher` and notes how long that took."""

    def __init__(self, note: Callable[[list[str], float], None]) -> None:
        self._note = note

    def dispatch_event(self, event: Any) -> None:
        started = time.perf_counter()
        EventDispatcher.dispatch_event(event)
        took_s = time.perf_counter() - started
        self._note(uuids_of(event.params), took_s)


class Shop:
    """An SDK client with a sample datafile; needs no network and starts no thread.

    Raises:
        DemoError: optimizely-sdk is not installed.
    """

    def __init__(self, dispatcher: Any) -> None:
        try:
            from optimizely import optimizely, version  # noqa: PLC0415 - an optional package
            from optimizely.event import event_processor  # noqa: PLC0415
            from optimizely.helpers import sdk_settings  # noqa: PLC0415
        except ImportError:
            raise not_installed("optimizely-sdk 5, or a package that it needs,") from None
        datafile = resources.files(__package__).joinpath("datafile.json").read_text("utf-8")
        self.sdk_version = str(version.__version__)
        self._client = optimizely.Optimizely(
            datafile,
            event_dispatcher=dispatcher,
            # The SDK's default one would drop what its queue of 1,000 does not hold.
            event_processor=event_processor.ForwardingEventProcessor(dispatcher),
            settings=sdk_settings.OptimizelySdkSettings(odp_disabled=True),
        )

    def visits(self, count: int, *, poisoned: int) -> Iterator[int]:
        """Let visitors come by, and yield after each how many have been there.

        Each is decided on and tracks a purchase. ``poisoned`` is the number of the visitor whose
        purchase has a list in a tag: the SDK sends that, and the Event API documents scalars.
        """
        for number in range(count):
            attributes = {"plan": _PLANS[number % len(_PLANS)], "visits": number % 10}
            user = self._client.create_user_context(f"visitor-{number}", attributes)
            decision = user.decide(_FLAG)
            price = 4900 if decision.variables["steps"] == 1 else 4200
            tags: dict[str, Any] = {"revenue": price, "value": price / 100, "currency": "EUR"}
            if number == poisoned:
                tags["basket"] = ["espresso machine", "descaler"]
            user.track_event("purchase", tags)
            yield number + 1

    def close(self) -> None:
        self._client.close()
