"""Events inside a database transaction go out when it commits, and only then."""

from __future__ import annotations

import contextlib
import threading

import pytest
from django.db import DatabaseError, connections, transaction

from optly_celery.contrib.django import client
from optly_celery.contrib.django.on_commit import OnCommitDispatcher

from .django_site import CONVERSION, FLAG, Recorder, _migrated, database, optimizely, recorder

__all__ = ["_migrated", "database", "recorder"]


class RollBackError(Exception):
    """Rolls back."""


@pytest.fixture
def buy(database, recorder):
    """Track a purchase of so many cents, with ``on_commit`` on."""
    with optimizely(on_commit=True):
        yield lambda cents: client.create_user_context("v").track_event(
            CONVERSION, {"revenue": cents}
        )


def revenues():
    return [
        item["tags"]["revenue"]
        for event in Recorder.events
        for item in event.params["visitors"][0]["snapshots"][0]["events"]
    ]


def test_outside_of_a_transaction_an_event_goes_at_once(buy):
    """What has no commit to wait for is not delayed."""
    buy(1)

    assert revenues() == [1]


def test_a_commit_sends_each_event_once_and_in_order(buy):
    """Nothing before the commit, and nothing missing, twice or out of order after it."""
    with transaction.atomic():
        buy(1)
        buy(2)
        assert revenues() == []

    assert revenues() == [1, 2]


def test_a_rolled_back_purchase_sends_no_conversion(buy):
    """What is not in the database is not in the results; the next purchase is in both."""
    with contextlib.suppress(RollBackError), transaction.atomic():
        buy(1)
        raise RollBackError

    buy(2)
    assert revenues() == [2]


def test_a_nested_block_waits_for_the_outermost(buy):
    """The end of an inner block is no commit; order is that of the calls, over all blocks."""
    with transaction.atomic():
        buy(1)
        with transaction.atomic():
            buy(2)
        assert revenues() == []
        buy(3)

    assert revenues() == [1, 2, 3]


def test_a_rolled_back_savepoint_drops_its_own_events_alone(buy):
    """What came before and after it is committed, and so it is sent."""
    with transaction.atomic():
        buy(1)
        with contextlib.suppress(RollBackError), transaction.atomic():
            buy(2)
            with transaction.atomic():
                buy(3)
            raise RollBackError
        buy(4)

    assert revenues() == [1, 4]


def test_django_does_not_tie_events_to_a_savepoint_made_by_hand(buy):
    """A limit of ``transaction.on_commit``, which knows of ``atomic`` alone, and documented."""
    create = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # 6.1, before
    with transaction.atomic():
        sid = create()
        buy(1)
        transaction.savepoint_rollback(sid)

    assert revenues() == [1]


def test_an_outer_rollback_drops_what_inner_blocks_have_finished(buy):
    """An inner block that ended well has still committed nothing."""
    with contextlib.suppress(RollBackError), transaction.atomic():
        with transaction.atomic():
            buy(1)
        raise RollBackError

    assert revenues() == []


def test_a_transaction_marked_for_rollback_sends_nothing(buy):
    """Its block ends without an exception, but without a commit, too."""
    with transaction.atomic():
        buy(1)
        transaction.set_rollback(True)

    assert revenues() == []


def test_a_commit_that_fails_sends_nothing(buy, monkeypatch):
    """The database says no at the last moment, as a deferred constraint does."""

    def refuse():
        raise DatabaseError("deferred constraint")

    with monkeypatch.context() as patch:
        patch.setattr(connections["default"], "_commit", refuse)
        with pytest.raises(DatabaseError), transaction.atomic():
            buy(1)

    assert revenues() == []


def test_manual_transaction_management_sends_at_once(buy):
    """Without ``atomic`` Django cannot tell when a transaction ends."""
    transaction.set_autocommit(False)
    try:
        buy(1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert revenues() == [1]


def test_the_transaction_of_another_database_does_not_matter(database, recorder):
    """Only the database that the option names is waited for."""
    with optimizely(on_commit="orders"):
        user = client.create_user_context("v")
        with transaction.atomic():
            user.track_event(CONVERSION, {"revenue": 1})
            assert revenues() == [1]
        with transaction.atomic(using="orders"):
            user.track_event(CONVERSION, {"revenue": 2})
            assert revenues() == [1]

    assert revenues() == [1, 2]


def test_the_transaction_of_another_thread_does_not_matter(buy):
    """An event never waits for a commit that is not its own thread's."""
    with transaction.atomic():
        other = threading.Thread(target=buy, args=(1,))
        other.start()
        other.join()

        assert revenues() == [1]


def test_an_impression_waits_as_well(buy, recorder):
    """A decision of work that was undone is not counted as shown, any more than a purchase is."""
    with contextlib.suppress(RollBackError), transaction.atomic():
        client.create_user_context("v").decide(FLAG)
        raise RollBackError
    with transaction.atomic():
        client.create_user_context("v").decide(FLAG)
        assert recorder.keys() == []

    assert recorder.keys() == ["campaign_activated"]


def test_without_the_option_nothing_waits(database, recorder):
    """Who has not asked for it has events sent at once, as the SDK does."""
    with optimizely(), contextlib.suppress(RollBackError), transaction.atomic():
        client.create_user_context("v").track_event(CONVERSION, {"revenue": 1})
        raise RollBackError

    assert revenues() == [1]


def test_an_event_is_sent_as_it_was_when_tracked(database, recorder):
    """What the caller does to its dictionary of tags until the commit changes nothing."""
    tags = {"revenue": 1}
    event = _event({"visitors": [{"tags": tags}]})
    with transaction.atomic():
        OnCommitDispatcher("default", recorder).dispatch_event(event)
        tags["revenue"] = 2

    assert recorder.events[0].params == {"visitors": [{"tags": {"revenue": 1}}]}


def test_what_is_no_event_is_left_to_the_dispatcher_to_count(database, recorder):
    """It cannot be copied for later, and is passed on as it is rather than lost uncounted."""
    event = _event({"visitors": {1, 2}})
    with transaction.atomic():
        OnCommitDispatcher("default", recorder).dispatch_event(event)

    assert recorder.events == [event]


@pytest.mark.filterwarnings("ignore")
def test_a_dispatcher_that_raises_harms_neither_the_commit_nor_its_other_callbacks(database):
    """Rows stay committed, and what else waited for the commit is called."""

    class Broken:
        @staticmethod
        def dispatch_event(_):
            raise RollBackError

    called = []
    with transaction.atomic():
        OnCommitDispatcher("default", Broken).dispatch_event(_event({}))
        transaction.on_commit(lambda: called.append(1))

    assert called == [1]


def test_looking_for_a_transaction_opens_no_connection(recorder):
    """A view that uses no database goes on using none, and its event goes at once."""
    connections.close_all()
    OnCommitDispatcher("default", recorder).dispatch_event(_event({}))

    assert connections["default"].connection is None
    assert len(recorder.events) == 1


def _event(params):
    return type("LogEvent", (), {
        "url": "https://logx.optimizely.com/v1/events", "params": params,
        "http_verb": "POST", "headers": None,
    })()  # fmt: skip
