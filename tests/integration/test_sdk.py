"""The real Optimizely SDK, whichever version is installed, before a real worker.

``nox -s sdk`` runs this with three major versions.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from celery import _state
from optimizely.event.event_processor import BatchEventProcessor, ForwardingEventProcessor
from optimizely.optimizely import Optimizely

from optly_celery import stats
from optly_celery.event_dispatcher import EventDispatcher
from optly_celery.event_dispatcher import EventDispatcher as event_dispatcher  # noqa: N813
from optly_celery.testing.schema import strict_check

from ..line import uuids_in
from ..support import eventually

DATAFILE = (Path(__file__).parents[1] / "sdk" / "datafile.json").read_text()
VISITOR = "vïsitor-1"
ATTRIBUTES = {"plan": "gold ✓"}


# SDK 3 and 4 start their thread so.
pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")


@pytest.fixture(autouse=True)
def strict(app, broker, collector, make_worker, monkeypatch):
    """A worker that asks for strictness, before an endpoint that looks at each body."""
    monkeypatch.setattr(_state, "default_app", app)  # as Celery() does, for all threads
    collector.accepts = strict_check()
    worker = make_worker(broker.url, url_override=collector.url, strict=True)
    yield
    assert broker.client().exists("optly_celery:dead-letters:times") == 0, worker.output()


class Recorder(EventDispatcher):
    """A dispatcher that notes what the SDK gave it, as the SDK's own would have posted it."""

    def __init__(self):
        self.bodies = []

    def dispatch_event(self, event):
        self.bodies.append(json.dumps(event.params).encode())
        return EventDispatcher.dispatch_event(event)


def use(client):
    """One impression each by ``activate`` and by ``decide``, one conversion."""
    assert client.is_valid
    assert client.activate("one_page", VISITOR, ATTRIBUTES) == "on"
    user = client.create_user_context(VISITOR, ATTRIBUTES)
    assert user.decide("checkout").variation_key == "on"
    client.track("purchase", VISITOR, ATTRIBUTES, {"revenue": 4200, "value": 0.1, "sku": "ü-1"})


@pytest.mark.parametrize("form", ["class", "instance", "the name in the SDK's documentation"])
@pytest.mark.parametrize("forwarding", [True, False], ids=["forwarding", "the SDK's choice"])
def test_what_the_sdk_dispatches_is_taken_by_a_strict_endpoint(collector, form, forwarding):
    """One word changes in the SDK's example; every event arrives once and is well-formed."""
    dispatcher = {"class": EventDispatcher, "instance": EventDispatcher()}.get(
        form, event_dispatcher
    )
    processor = ForwardingEventProcessor(dispatcher) if forwarding else None
    client = Optimizely(DATAFILE, event_dispatcher=dispatcher, event_processor=processor)

    use(client)
    _stop(client)

    events = eventually(lambda: _events(collector, 3), what=lambda: f"{stats()}")
    assert {r.answer.status for r in collector.received} == {204}
    assert {r.headers["x-optimizely-strict"] for r in collector.received} == {"true"}
    assert len(set(events)) == 3
    assert stats()["dropped"] == stats()["refused"] == {}


def test_the_bytes_are_those_that_the_sdk_would_have_posted(collector):
    """Same JSON, same order of keys, same numbers and unicode, one POST an event."""
    recorder = Recorder()
    client = Optimizely(
        DATAFILE, event_dispatcher=recorder, event_processor=ForwardingEventProcessor(recorder)
    )

    use(client)

    eventually(lambda: len(collector.received) == 3)
    assert sorted(r.body for r in collector.received) == sorted(recorder.bodies)


def test_a_batch_of_the_sdks_own_processor_arrives_whole(collector):
    """Its batches are events with several visitors, and stay so."""
    processor = BatchEventProcessor(EventDispatcher, batch_size=3, start_on_init=True)
    client = Optimizely(DATAFILE, event_dispatcher=EventDispatcher, event_processor=processor)

    use(client)
    processor.stop()

    eventually(lambda: _events(collector, 3))
    (received,) = collector.received
    assert len(json.loads(received.body)["visitors"]) == 3


def _events(collector, count):
    found = uuids_in(r.body for r in collector.received)
    return found if len(found) >= count else None


def _stop(client):
    # 3.10 has no close(), and its own choice of processor has no thread either.
    stop = getattr(client, "close", None) or getattr(client.event_processor, "stop", None)
    if stop is not None:
        stop()
