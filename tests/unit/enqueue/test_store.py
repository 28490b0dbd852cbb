"""The outbox and its relay as one thing."""

from __future__ import annotations

import pytest

from optly_celery.enqueue.store import Store
from optly_celery.event.event import Event
from optly_celery.settings import Settings

from ...support import US_URL, eventually, params_of
from .test_outbox import _descriptors
from .test_relay import ListPublisher


@pytest.fixture
def publisher():
    return ListPublisher()


@pytest.fixture
def store(tmp_path, publisher):
    made = Store(
        tmp_path, publisher, Settings(linger=0, batch_events=10), on_relayed=lambda _: None
    )
    yield made
    made.relay.close(0)
    made._outbox.close()


def test_what_is_put_is_relayed_without_being_asked_for(store, publisher):
    """Each time: also once the relay has gone back to sleep."""
    for number in (1, 2):
        store.put(Event.of(US_URL, params_of()))
        eventually(lambda number=number: publisher.events == number)


def test_closing_leaves_nothing_behind(store, publisher, tmp_path):
    """An empty outbox goes with its lock, and with everything that the process had open for it."""
    before = _descriptors()
    store.put(Event.of(US_URL, params_of()))

    assert store.close(30)

    assert publisher.events == 1
    assert list(tmp_path.iterdir()) == []
    assert _descriptors() < before
