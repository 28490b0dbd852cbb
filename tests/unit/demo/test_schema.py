"""What a strict collector takes: the SDK's events, and nothing that breaks a documented rule."""

import copy
import json

import pytest

from optly_celery.demo.shop import Shop
from optly_celery.testing.schema import faults_of, strict_check

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


DAMAGES = [
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
]


@pytest.mark.parametrize("damage", DAMAGES)
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


ROOT, VISITOR = "", "visitors[0]"
SNAPSHOT, EVENT = "visitors[0].snapshots[0]", "visitors[0].snapshots[0].events[0]"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda p: p.pop("account_id"), "the whole: account_id missing"),
        (lambda p: [p.pop("account_id"), p.pop("visitors")],
         "the whole: account_id, visitors missing"),
        (lambda p: p.update(account_id=12001), "account_id: string wanted, integer found"),
        (lambda p: p.update(account_id=None), "account_id: string wanted, null found"),
        (lambda p: p.update(anonymize_ip="true"), "anonymize_ip: boolean wanted, string found"),
        (lambda p: p.update(visitors={}), "visitors: array wanted, object found"),
        (lambda p: p.update(surprise=1), "the whole: surprise not documented"),
        (lambda p: p.update({"\x1b[2J": 1}), 'the whole: "\\u001b[2J" not documented'),
        (lambda p: _visitor(p).update({"ann@example.org": 1}),
         f'{VISITOR}: "ann@example.org" not documented'),
        (lambda p: _visitor(p).update({"x" * 900: 1}),
         f"{VISITOR}: " + json.dumps("x" * 64) + " not documented"),
        (lambda p: _visitor(p).pop("visitor_id"), f"{VISITOR}: visitor_id missing"),
        (lambda p: _visitor(p).update(visitor_id=""),
         f"{VISITOR}.visitor_id: against the rule minLength 1"),
        (lambda p: _visitor(p)["attributes"][0].pop("type"),
         f"{VISITOR}.attributes[0]: type missing"),
        (lambda p: _visitor(p)["attributes"][0].pop("entity_id"),
         f"{VISITOR}.attributes[0]: entity_id missing"),
        (lambda p: _visitor(p)["attributes"][0].update(value=None),
         f"{VISITOR}.attributes[0].value: string or number or boolean wanted, null found"),
        (lambda p: _visitor(p)["snapshots"][0].pop("events"), f"{SNAPSHOT}: events missing"),
        (lambda p: _decision(p).update(variation_id=3),
         f"{SNAPSHOT}.decisions[0].variation_id: string or null wanted, integer found"),
        (lambda p: _event(p).pop("uuid"), f"{EVENT}: uuid missing"),
        (lambda p: _event(p).update(timestamp="17"),
         f"{EVENT}.timestamp: integer wanted, string found"),
        (lambda p: _event(p).update(timestamp=1.5),
         f"{EVENT}.timestamp: integer wanted, number found"),
        (lambda p: _event(p).update(timestamp=-1),
         f"{EVENT}.timestamp: against the rule minimum 0"),
        (lambda p: _event(p).update(revenue=True),
         f"{EVENT}.revenue: integer wanted, boolean found"),
        (lambda p: _event(p).update(tags={"basket": ["secret"]}),
         f"{EVENT}.tags.basket: string or number or boolean wanted, array found"),
        (lambda p: _event(p).update(tags={"a b": None}),
         f'{EVENT}.tags."a b": string or number or boolean wanted, null found'),
        (lambda p: _event(p).update(tags=[]), f"{EVENT}.tags: object wanted, array found"),
    ],
)  # fmt: skip
def test_a_fault_is_told_by_its_place_and_its_rule(damage, fault):
    """And never by what stands there, which may be personal data."""
    payload = copy.deepcopy(params_of())
    assert list(faults_of(payload)) == []

    damage(payload)

    assert list(faults_of(payload)) == [fault]


def test_all_faults_are_told_in_the_order_of_their_places():
    """A batch's visitors by their numbers, so that who looks finds them."""
    payload = copy.deepcopy(params_of())
    payload["visitors"] = [copy.deepcopy(_visitor(payload)) for _ in range(12)]
    for number in (11, 2, 10):
        payload["visitors"][number]["visitor_id"] = number

    places = [fault.partition(":")[0] for fault in faults_of(payload)]

    assert places == [f"visitors[{number}].visitor_id" for number in (2, 10, 11)]


@pytest.mark.parametrize("params", [None, 7, "text", [], True, b"bytes", object()])
def test_what_is_no_object_has_one_fault(params):
    """Its kind, and nothing of it."""
    (fault,) = faults_of(params)

    assert fault.startswith("the whole: object wanted, ")


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_refused_has_a_fault(accepts, damage):
    """Whatever the strict stand-in answers 400 to can be explained."""
    payload = copy.deepcopy(params_of())
    damage(payload)

    assert not accepts(payload)
    assert list(faults_of(payload))
