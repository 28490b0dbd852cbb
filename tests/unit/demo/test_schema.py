"""What a strict collector takes: the SDK's events, and nothing that breaks a documented rule."""

import copy
import json

import pytest

from optly_celery.demo.shop import Shop
from optly_celery.testing.schema import strict_check

from ...support import params_of


class Recorder:
    """A dispatcher that remembers."""

    def __init__(self):
        self.payloads = []

    def dispatch_event(self, event):
        self.payloads.append(event.params)


@pytest.fixture(scope="module")
def payloads():
    """What the real SDK makes of three visitors, the second of them poisoned."""
    recorder = Recorder()
    shop = Shop(recorder)
    list(shop.visits(3, poisoned=1))
    shop.close()
    return recorder.payloads


@pytest.fixture(scope="module")
def accepts():
    check = strict_check()
    return lambda payload: check(json.dumps(payload).encode())


def test_the_sdks_events_are_taken_but_for_the_poisoned_one(payloads, accepts):
    """Six events: an impression and a conversion of each visitor."""
    assert [accepts(payload) for payload in payloads] == [True, True, True, False, True, True]


def test_each_visitor_is_decided_and_tracks(payloads):
    """The datafile is a valid one, and its experiment has all the traffic."""
    events = [p["visitors"][0]["snapshots"][0]["events"][0]["key"] for p in payloads]

    assert events == ["campaign_activated", "purchase"] * 3


def test_the_least_that_is_documented_is_taken(accepts):
    """Account, visitor, and an event with uuid and timestamp."""
    event = {"uuid": "u", "timestamp": 1}
    visitor = {"visitor_id": "v", "snapshots": [{"events": [event]}]}

    assert accepts({"account_id": "1", "visitors": [visitor]})


def _visitor(payload):
    return payload["visitors"][0]


def _event(payload):
    return _visitor(payload)["snapshots"][0]["events"][0]


def _decision(payload):
    return _visitor(payload)["snapshots"][0]["decisions"][0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.pop("account_id"),
        lambda p: p.pop("visitors"),
        lambda p: p.update(account_id=12001),
        lambda p: p.update(anonymize_ip="true"),
        lambda p: p.update(visitors={}),
        lambda p: p.update(surprise=1),
        lambda p: _visitor(p).pop("visitor_id"),
        lambda p: _visitor(p).update(visitor_id=""),
        lambda p: _visitor(p).pop("snapshots"),
        lambda p: _visitor(p)["attributes"][0].pop("type"),
        lambda p: _visitor(p)["attributes"][0].pop("entity_id"),
        lambda p: _visitor(p)["attributes"][0].update(value=None),
        lambda p: _visitor(p)["snapshots"][0].pop("events"),
        lambda p: _decision(p).pop("campaign_id"),
        lambda p: _decision(p).update(variation_id=3),
        lambda p: _event(p).pop("uuid"),
        lambda p: _event(p).pop("timestamp"),
        lambda p: _event(p).update(timestamp="1700000000000"),
        lambda p: _event(p).update(timestamp=1.5),
        lambda p: _event(p).update(revenue="4200"),
        lambda p: _event(p).update(revenue=True),
        lambda p: _event(p).update(value="42"),
        lambda p: _event(p).update(quantity=1.5),
        lambda p: _event(p).update(tags={"basket": ["a"]}),
        lambda p: _event(p).update(tags={"basket": {"a": 1}}),
        lambda p: _event(p).update(tags=[]),
    ],
)
def test_a_payload_that_breaks_a_rule_is_refused(accepts, damage):
    """One rule at a time."""
    payload = copy.deepcopy(params_of())
    assert accepts(payload)

    damage(payload)

    assert not accepts(payload)


@pytest.mark.parametrize("body", [b"", b"visitors", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body):
    """No exception comes of it."""
    assert strict_check()(body) is False
