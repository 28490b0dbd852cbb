"""A worker's parts are made once for each consumer, of its app's settings."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from celery.worker import state

from optly_celery.errors import SettingsError
from optly_celery.names import DELIVER_TASK
from optly_celery.worker.parts import known_parts, parts_of

from ...support import US_URL
from .doubles import QUEUE, Consumer, a_message, an_app


def test_a_consumer_has_the_same_parts_whenever_somebody_asks():
    """What one connection paused, the next goes on with."""
    consumer = Consumer(an_app())

    assert parts_of(consumer) is parts_of(consumer) is known_parts(consumer)


def test_two_consumers_have_each_their_own():
    """Two workers of one app in one process: what one of them suspects is not the other's."""
    app = an_app()
    one, other = (parts_of(Consumer(app)) for _ in range(2))

    for name in vars(one):
        if name not in {"queue", "give_back_s", "_returned"}:
            assert getattr(one, name) is not getattr(other, name), name
    assert one.pausing.pauses is not other.pausing.pauses


def test_each_part_works_with_its_own_consumer():
    """A loop, and so a timer, that is another worker's would run it in another thread."""
    app = an_app()
    one, other = Consumer(app), Consumer(app)
    parts_of(one)
    done = []

    parts_of(other).loop.soon(lambda: done.append(1))

    one.turn()
    assert done == []
    other.turn()
    assert done == [1]


@pytest.mark.parametrize("consumer", [None, object()])
def test_there_may_be_none_yet(consumer):
    """Remote control may ask before the deliver queue's step was made."""
    assert known_parts(consumer) is None


@pytest.mark.parametrize(("longest_s", "give_back_s"), [(300.0, 30.0), (7.0, 7.0)])
def test_a_give_back_waits_no_longer_than_a_backoff(longest_s, give_back_s):
    """The visibility timeout is checked against the backoff, and so covers this wait."""
    app = an_app(optly_retry_backoff_max=longest_s)

    assert parts_of(Consumer(app)).give_back_s == give_back_s


def test_parts_are_made_of_the_settings():
    """The queue, what pauses a host, and where all posts go instead."""
    there = an_app(optly_url_override="http://there:81/")
    never = an_app(optly_pause_after=0)

    assert parts_of(Consumer(there)).pausing.host_of(US_URL) == "there:81"
    assert not parts_of(Consumer(never)).pausing.pauses.enabled


def test_another_queue_is_the_queue_of_every_part():
    """Under its name it is consumed, and its unreadable messages kept."""
    app = an_app(optly_queue="other")
    app.amqp.queues.select(["other"])
    consumer = Consumer(app)
    parts = parts_of(consumer)
    parts.unreadable.install()

    ours = a_message(routing_key=QUEUE)
    consumer.on_unknown_message(None, ours)
    assert consumer.celerys_way == [("on_unknown_message", ours)]
    assert parts.pausing._is_wanted()
    assert parts.set_aside._is_wanted()


def test_wrong_settings_make_no_parts():
    """A worker that has started has seen that they are right; nothing is half made."""
    consumer = Consumer(an_app(optly_pause_after=-1))

    with pytest.raises(SettingsError):
        parts_of(consumer)

    assert known_parts(consumer) is None


def test_in_a_green_pool_a_return_is_asked_for_once():
    """Only there a killed task looks like one that has ended well."""
    green, other = parts_of(Consumer(an_app(), green=True)), parts_of(Consumer(an_app()))
    green.note_return("t-1")

    assert [green.has_returned("t-1") for _ in range(2)] == [True, False]
    assert other.has_returned("t-1")


def test_what_is_under_way_for_longer_than_any_event_may_be_is_late(monkeypatch):
    """Not another task of the app's, nor one that waits; a solo pool may have begun none."""
    now = time.time()
    begun = [
        SimpleNamespace(type=DELIVER_TASK, time_start=now - 3600),
        SimpleNamespace(type=DELIVER_TASK, time_start=now - 1),
        SimpleNamespace(type=DELIVER_TASK, time_start=None),
        SimpleNamespace(type="shop.report", time_start=now - 3600),
    ]
    monkeypatch.setattr(state, "active_requests", begun)

    assert parts_of(Consumer(an_app())).late() == 1
