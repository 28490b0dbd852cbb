"""What an app sends is recorded, told apart and asserted on."""

from __future__ import annotations

import threading
from decimal import Decimal
from importlib import resources

import pytest
from celery import _state
from optimizely.event.event_processor import ForwardingEventProcessor
from optimizely.helpers.enums import NotificationTypes
from optimizely.optimizely import Optimizely

import optly_celery
from optly_celery import EventDispatcher, create_client, dispatch, dispatch_event, stats
from optly_celery.testing import Conversion, Decision, RecordingDispatcher, recording

from ...support import US_URL, params_of

DATAFILE = resources.files("optly_celery.demo").joinpath("datafile.json").read_text()


@pytest.fixture
def recorder():
    return RecordingDispatcher()


@pytest.fixture
def client(recorder):
    return client_with(recorder)


def client_with(dispatcher):
    return Optimizely(
        DATAFILE, event_dispatcher=dispatcher, event_processor=ForwardingEventProcessor(dispatcher)
    )


def shop(client, user_id="ann", **tags):
    user = client.create_user_context(user_id, {"plan": "team", "unknown to the datafile": 1})
    user.decide("new_checkout")
    user.track_event("purchase", {"revenue": 4200, "value": 42.0, **tags})


def test_what_the_sdk_sends_is_read_back_in_order(client, recorder):
    """One decision, one conversion, with everything that a test could ask for."""
    shop(client, sku="m-1")

    decision, conversion = recorder.events
    assert decision == Decision(
        flag_key="new_checkout",
        rule_key="checkout_in_one_page",
        rule_type="feature-test",
        variation_key=decision.variation_key,
        enabled=True,
        user_id="ann",
        attributes={"plan": "team", "$opt_bot_filtering": False},
        uuid=decision.uuid,
        raw={},
    )
    assert decision.variation_key in ("one_page", "three_pages")
    assert conversion == Conversion(
        event_key="purchase",
        revenue=4200,
        value=42.0,
        tags={"revenue": 4200, "value": 42.0, "sku": "m-1"},
        user_id="ann",
        attributes={"plan": "team", "$opt_bot_filtering": False},
        uuid=conversion.uuid,
        raw={},
    )
    assert decision.uuid
    assert conversion.uuid
    assert [event.event_count for event in recorder.dispatched] == [1, 1]


def test_an_experiment_without_a_flag_is_found_by_its_rule(client, recorder):
    """``activate`` is the SDK's older call."""
    client.activate("checkout_in_one_page", "ann")

    assert recorder.decisions(rule_key="checkout_in_one_page", flag_key="")[0].user_id == "ann"


def test_assertions_hold_for_what_was_sent(client, recorder):
    """Every filter at once, and the thing itself comes back."""
    shop(client, "ann", sku="m-1")
    shop(client, "bob")

    decision = recorder.assert_decided(
        "new_checkout", user_id="ann", enabled=True, rule_key="checkout_in_one_page",
        attributes={"plan": "team"}, times=1,
    )  # fmt: skip
    conversion = recorder.assert_tracked(
        "purchase", user_id="ann", revenue=4200, value=42, tags={"sku": "m-1"},
        attributes={"plan": "team"}, times=1,
    )  # fmt: skip

    assert (decision.user_id, conversion.user_id) == ("ann", "ann")
    assert recorder.assert_tracked("purchase", times=2).user_id == "bob"
    assert len(recorder.decisions("new_checkout")) == len(recorder.conversions()) == 2
    recorder.assert_not_tracked("purchase", user_id="cleo")
    recorder.assert_not_decided("another_flag")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: r.assert_decided("old_checkout"),
        lambda r: r.assert_decided("new_checkout", variation_key="two_pages"),
        lambda r: r.assert_decided("new_checkout", rule_key="another"),
        lambda r: r.assert_decided("new_checkout", enabled=False),
        lambda r: r.assert_decided("new_checkout", user_id="bob"),
        lambda r: r.assert_decided("new_checkout", attributes={"plan": "free"}),
        lambda r: r.assert_decided("new_checkout", attributes={"unknown to the datafile": 1}),
        lambda r: r.assert_decided("new_checkout", times=2),
        lambda r: r.assert_tracked("refund"),
        lambda r: r.assert_tracked("purchase", revenue=1),
        lambda r: r.assert_tracked("purchase", value=1),
        lambda r: r.assert_tracked("purchase", tags={"sku": "m-2"}),
        lambda r: r.assert_tracked("purchase", user_id="bob"),
        lambda r: r.assert_tracked("purchase", attributes={"plan": "free"}),
        lambda r: r.assert_tracked("purchase", times=2),
        lambda r: r.assert_not_decided("new_checkout"),
        lambda r: r.assert_not_decided(),
        lambda r: r.assert_not_tracked("purchase", revenue=4200),
        lambda r: r.assert_not_tracked(),
        lambda r: r.assert_nothing(),
    ],
)
def test_a_failed_assertion_lists_everything_that_was_recorded(client, recorder, wrong):
    """Nobody should need a debugger to see what was sent instead, and what was refused."""
    shop(client, sku="m-1")
    recorder.dispatch_event("no event")

    with pytest.raises(AssertionError) as caught:
        wrong(recorder)

    told = str(caught.value)
    assert "recorded: 2\n  decision   flag_key='new_checkout' rule_key=" in told
    assert "\n  conversion event_key='purchase' revenue=4200 value=42.0 tags={" in told
    assert told.endswith("\nrefused: 1 x no_url")


def test_a_failed_assertion_names_what_was_looked_for(recorder):
    """And says that there was nothing at all, if so."""
    with pytest.raises(AssertionError) as caught:
        recorder.assert_decided("checkout", user_id="ann")

    told = "no decision with flag_key='checkout' user_id='ann'\nrecorded: nothing at all"
    assert str(caught.value) == told


def test_a_field_that_does_not_exist_is_an_error_and_no_mismatch(client, recorder):
    """A misspelt filter would otherwise make every ``assert_not_…`` pass."""
    shop(client)

    with pytest.raises(TypeError, match="a decision has no varation_key"):
        recorder.assert_not_decided(varation_key="one_page")
    with pytest.raises(ValueError, match="assert_not_tracked"):
        recorder.assert_tracked("purchase", times=0)


def test_recording_takes_what_goes_through_the_package(recorder):
    """By whichever door, from any thread, with no Celery app and no broker configured."""
    client = client_with(EventDispatcher)
    with recording() as events:
        shop(client)
        dispatch(US_URL, params_of("dora"))
        thread = threading.Thread(target=shop, args=(client, "eve"))
        thread.start()
        thread.join()

    assert [e.user_id for e in events.events] == ["ann", "ann", "dora", "eve", "eve"]
    assert stats()["accepted"] == stats()["published"] == 5
    assert optly_celery.runtime.process._runtimes == {}


@pytest.mark.parametrize("listens", [False, True], ids=["shortcut", "by way of the SDK's JSON"])
def test_recording_takes_what_our_own_client_sends(listens):
    """Whichever way its processor goes, what is recorded is the same, and so is what is refused."""
    client = create_client(datafile=DATAFILE)
    if listens:
        client.notification_center.add_notification_listener(NotificationTypes.LOG_EVENT, print)
    with recording() as events:
        shop(client, price=Decimal("1.5"))
        shop(client, wrong=object())

    events.assert_decided("new_checkout", user_id="ann", attributes={"plan": "team"}, times=2)
    events.assert_tracked("purchase", tags={"price": 1.5}, revenue=4200, times=1)
    assert sum(events.refused.values()) == 1
    assert [event.event_count for event in events.dispatched] == [1, 1, 1]
    with pytest.raises(AssertionError, match="refused: 1 x "):
        events.assert_tracked("purchase", times=2)


def test_recording_ends_with_its_block(app, broker, monkeypatch):
    """The next event goes where it went before; an inner block has its events to itself."""
    monkeypatch.setattr(_state, "default_app", app)
    with recording() as outer:
        with recording() as inner:
            dispatch(US_URL, params_of("inner"))
        dispatch(US_URL, params_of("outer"))
    dispatch(US_URL, params_of("sent"))

    assert [e.user_id for e in inner.events] == ["inner"]
    assert [e.user_id for e in outer.events] == ["outer"]
    assert broker.client().llen("optimizely") == 1


def test_what_is_no_event_is_refused_as_ever_and_told():
    """Recording must not take what production would refuse."""
    with recording() as events:
        dispatch_event("no event")
        dispatch(US_URL, {"visitors": [object()]})

    assert events.refused == {"no_url": 1, "params_not_json": 1}
    assert events.dispatched == []
    with pytest.raises(AssertionError, match="refused: 1 x params_not_json"):
        events.assert_nothing()
    events.clear()
    events.assert_nothing()


def test_params_of_any_shape_are_read_without_an_error(recorder):
    """A hand-made event may hold anything that is JSON."""
    odd = [
        {},
        {"visitors": None},
        {"visitors": [1, {}, {"snapshots": [{"events": [3, {}], "decisions": [{}]}]}]},
    ]
    with recording() as events:
        for params in odd:
            dispatch(US_URL, params)

    assert len(events.dispatched) == 3
    assert [type(e) for e in events.events] == [Decision, Conversion]
