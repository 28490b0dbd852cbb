"""One walk through visitors, snapshots and events, whatever stands in their place."""

import pytest

from optly_celery.event.payload import count_events, uuids_of, walk

from ...support import params_of, visitor_of

STRANGE = [
    None, 7, "visitors", [], {}, {"visitors": None}, {"visitors": 1}, {"visitors": {}},
    {"visitors": [1, None, "v"]}, {"visitors": [{}]}, {"visitors": [{"snapshots": 7}]},
    {"visitors": [{"snapshots": [[]]}]},
]  # fmt: skip


def test_each_snapshot_comes_with_its_visitor_and_its_events():
    """In the order of the payload, which is neither copied nor changed."""
    ann, bob = visitor_of("ann", "u-1"), visitor_of("bob", "u-2")
    bob["snapshots"].append({"decisions": [], "events": [{"uuid": "u-3"}, {"uuid": "u-4"}]})

    found = list(walk({"visitors": [ann, bob]}))

    assert [visitor is ann for visitor, _, _ in found] == [True, False, False]
    assert [snapshot for _, snapshot, _ in found] == ann["snapshots"] + bob["snapshots"]
    assert [[event["uuid"] for event in events] for _, _, events in found] == [
        ["u-1"], ["u-2"], ["u-3", "u-4"],
    ]  # fmt: skip


def test_a_snapshot_without_events_is_walked():
    """It may hold a decision."""
    decided = {"decisions": [{"campaign_id": "1"}]}

    assert [(s, e) for _, s, e in walk({"visitors": [{"snapshots": [decided]}]})] == [(decided, [])]


@pytest.mark.parametrize("params", STRANGE)
def test_what_has_another_shape_is_passed_over(params):
    """Anybody may post to an open port, and a dead letter may hold anything."""
    assert list(walk(params)) == []
    assert uuids_of(params) == []
    assert count_events(params.get("visitors") if isinstance(params, dict) else params) == 0


@pytest.mark.parametrize("strange", [None, 7, "v", [], {}, {"snapshots": [None, {"events": 7}]}])
def test_what_stands_beside_it_is_found(strange):
    """One bad thing hides nobody else."""
    visitors = [visitor_of("ann", "u-1"), strange, visitor_of("bob", "u-2")]

    assert uuids_of({"visitors": visitors}) == ["u-1", "u-2"]
    assert count_events(visitors) == 2


@pytest.mark.parametrize("event", [None, 7, {}, {"uuid": None}, {"uuid": 7}])
def test_an_event_without_a_uuid_has_none(event):
    """It is listed, so it counts as one; only it cannot be told from another."""
    params = params_of()
    params["visitors"][0]["snapshots"][0]["events"].append(event)

    assert uuids_of(params) == ["uuid-1"]
    assert count_events(params["visitors"]) == 2


def test_a_uuid_that_comes_twice_is_there_twice():
    """A duplicate is for the reader to find."""
    assert uuids_of({"visitors": [visitor_of("ann", "u-1")] * 2}) == ["u-1", "u-1"]
