"""`EventProcessor` behind the real SDK: what ``track`` is given arrives as JSON, or is counted."""

from __future__ import annotations

import enum
import json
import threading
import uuid
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimizely.event.event_factory import EventFactory
from optimizely.helpers import enums
from optimizely.optimizely import Optimizely

from optly_celery import EventDispatcher, EventProcessor, stats
from optly_celery.sdk import visitor_text

from ..line import uuids_in
from ..queued import queued

DATAFILE = (Path(__file__).parents[1] / "sdk" / "datafile.json").read_text()
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")

# SDK 3 and 4 start their thread so.
pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")


class Plan(str, enum.Enum):
    """Text as well, so that the SDK takes it for an attribute."""

    GOLD = "gold"


class Color(enum.Enum):
    """A plain Enum."""

    RED = "red"


Promise = type("Promise", (), {"__module__": "django.utils.functional"})
Lazy = type("__proxy__", (Promise,), {"__str__": lambda _: "Grüße"})


class Recorder:
    """A dispatcher of the app's own, which notes params as text."""

    def __init__(self):
        self.bodies = []

    def dispatch_event(self, event):
        self.bodies.append(json.dumps(event.params, allow_nan=False))


def client_with(dispatcher=EventDispatcher, **options):
    processor = EventProcessor(dispatcher, notification_center=options.get("notification_center"))
    return Optimizely(DATAFILE, event_processor=processor, **options)


def event_of(params):
    return params["visitors"][0]["snapshots"][0]["events"][0]


CONVERTED = [
    (Decimal("19.90"), 19.9),
    (datetime(2024, 2, 29, tzinfo=timezone.utc), "2024-02-29T00:00:00+00:00"),
    (date(2024, 2, 29), "2024-02-29"),
    (ID, str(ID)),
    ({2, 1}, [1, 2]),
    (b"caf\xc3\xa9", "café"),
    (Color.RED, "red"),
    (Lazy(), "Grüße"),
    (("a", "b"), ["a", "b"]),
]


@pytest.mark.parametrize(("value", "form"), CONVERTED, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("own", [True, False], ids=["our dispatcher", "another"])
def test_a_tag_arrives_in_its_json_form_and_the_next_event_too(app, broker, value, form, own):
    """What ends the SDK's own processor for good; the caller's dictionary stays as it was."""
    recorder = Recorder()
    client = client_with(EventDispatcher if own else recorder)
    tags = {"tag": value, "sku": "a"}

    client.track("purchase", "visitor-1", event_tags=tags)
    client.track("purchase", "visitor-2")

    seen = queued(broker) if own else [json.loads(body) for body in recorder.bodies]
    assert [params["visitors"][0]["visitor_id"] for params in seen] == ["visitor-1", "visitor-2"]
    assert event_of(seen[0])["tags"] == {"tag": form, "sku": "a"}
    assert tags == {"tag": value, "sku": "a"}
    assert stats()["refused"] == stats()["dropped"] == {}


def test_decimals_count_as_revenue_and_value(app, broker):
    """Where the SDK would leave them out, since it looks for int and float."""
    client_with().track(
        "purchase", "v", event_tags={"revenue": Decimal("4200.00"), "value": Decimal("0.1")}
    )

    (params,) = queued(broker)
    assert {k: event_of(params)[k] for k in ("revenue", "value")} == {"revenue": 4200, "value": 0.1}
    assert type(event_of(params)["revenue"]) is int


def test_numpys_numbers_arrive_in_tags_and_attributes(app, broker):
    """What comes out of a data frame is a plain number to Optimizely, and costs no event."""
    np = pytest.importorskip("numpy")

    client = client_with()
    client.track(
        "purchase", "v", {"plan": np.int64(7)}, {"value": np.float32(0.5), "n": np.int8(1)}
    )
    client.create_user_context("v", {"plan": np.int64(7)}).decide("checkout")

    conversion, impression = queued(broker)
    assert event_of(conversion)["tags"] == {"value": 0.5, "n": 1}
    for params in (conversion, impression):
        assert params["visitors"][0]["attributes"][0]["value"] == 7


@pytest.mark.parametrize("value", [Plan.GOLD, "gold", 7, 0.5, True], ids=repr)
def test_attributes_that_the_sdk_takes_arrive(app, broker, value):
    """Others, such as a Decimal, the SDK leaves out itself, before there is an event."""
    client = client_with()

    client.create_user_context("v", {"plan": value}).decide("checkout")
    client.track("purchase", "v", {"plan": value, "other": Decimal(1)})

    expected = value.value if isinstance(value, enum.Enum) else value
    for params in queued(broker):
        attributes = params["visitors"][0]["attributes"]  # and one of the SDK's own
        assert [a["value"] for a in attributes if a["key"] == "plan"] == [expected]


SECRET = "visitor-" + "1"


class Hostile(dict):
    """Raises when it is looked into."""

    def items(self):
        raise ZeroDivisionError(SECRET)


def _cycle():
    tags: dict = {}
    tags["tags"] = tags
    return tags


REFUSED = [
    (float("nan"), "not_finite"),
    (float("inf"), "not_finite"),
    (Decimal("NaN"), "not_finite"),
    (10**5000, "not_finite"),
    (b"\xff", "bytes_not_text"),
    (_cycle(), "cycle"),
    (object(), "no_json_form"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("kind", ["nothing", "TRACK", "LOG_EVENT"])
def test_an_event_without_a_json_form_is_refused_and_the_next_one_arrives(
    app, broker, value, reason, kind
):
    """Counted with the reason; ``track`` does not raise, whoever listens."""
    client = client_with()
    heard: list = []
    if kind != "nothing":
        name = getattr(enums.NotificationTypes, kind)
        for center in {client.notification_center, client.event_processor.notification_center}:
            center.add_notification_listener(name, lambda *args: heard.append(args))

    client.track("purchase", "v", event_tags={"tag": value})
    client.track("purchase", "next")

    (params,) = queued(broker)
    assert params["visitors"][0]["visitor_id"] == "next"
    assert stats()["refused"] == {reason: 1}
    assert len(heard) == {"nothing": 0, "TRACK": 2, "LOG_EVENT": 1}[kind]


def test_an_error_nobody_thought_of_is_counted_and_quoted_nowhere(app, broker, caplog):
    """``track`` does not raise, the next event arrives, and the log names the error's type."""
    client = client_with()

    client.track("purchase", "v", event_tags={"tag": Hostile(a=1)})
    client.track("purchase", "next", event_tags={"sku": "a"})

    assert len(queued(broker)) == 1
    assert stats()["dropped"] == {"unexpected_error": 1}
    assert "ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text


def test_what_is_refused_is_logged_without_its_data(app, broker, caplog):
    """The event's key is the datafile's; visitor, tag and value are not named."""
    client_with().track("purchase", "secret-id", event_tags={"secret-tag": b"\xffsecret"})

    assert "purchase" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_no_event_of_the_sdk_is_refused(app):
    """Counted and not raised, since the SDK's caller could do nothing about it."""
    EventProcessor().process({"visitor": "v"})
    EventProcessor().process(None)

    assert stats()["refused"] == {"no_user_event": 2}


def test_a_dispatcher_that_raises_is_counted_and_raises_nothing():
    """A dispatcher of the application's own cannot break a request, nor lose unnoticed."""

    class Broken:
        @staticmethod
        def dispatch_event(_event):
            raise ConnectionError

    client_with(Broken).track("purchase", "v")

    assert stats()["dropped"] == {"unexpected_error": 1}


def test_listeners_hear_of_each_event_and_may_change_it(app, broker):
    """As with the SDK's own processors: LOG_EVENT comes before the dispatch."""
    client = client_with()

    def mark(log_event):
        log_event.params["visitors"][0]["visitor_id"] = "changed"

    processor = client.event_processor
    processor.notification_center.add_notification_listener("LOG_EVENT:log_event", mark)

    client.track("purchase", "v")

    assert [params["visitors"][0]["visitor_id"] for params in queued(broker)] == ["changed"]


def test_it_has_no_thread_and_no_queue(app, broker):
    """There is nothing to flush, to lose in a fork, or to overflow in a burst."""
    before = threading.active_count()
    client = client_with()

    for number in range(1500):  # the SDK's own queue holds a thousand
        client.track("purchase", f"v-{number}")

    assert threading.active_count() == before
    assert len(queued(broker)) == 1500


FLAT = st.dictionaries(
    st.text(max_size=5) | st.sampled_from(["revenue", "value", "tags", "decisions"]),
    st.text() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none() | st.decimals(allow_nan=False) | st.lists(st.none() | st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from(["value", "x"]), st.none(), max_size=2),
    max_size=5,
)  # fmt: skip
ATTRIBUTES = st.dictionaries(
    st.just("plan"), st.text() | st.booleans() | st.integers() | st.floats(), max_size=1
)


@pytest.fixture
def both_ways(monkeypatch):
    """A client, and for each event what the SDK would have sent beside what was taken."""
    seen: list = []
    processor = EventProcessor()
    take = processor._visitor_text.event_of

    def look(user_event):
        event = take(user_event)
        if event is not None:
            log_event = EventFactory.create_log_event(user_event, processor.logger)
            seen.append((event.body, json.dumps(log_event.params), event.url, log_event.url))
        return event

    monkeypatch.setattr(processor._visitor_text, "event_of", look)
    return Optimizely(DATAFILE, event_processor=processor), seen


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.tuples(st.text(), FLAT, ATTRIBUTES))
def test_the_shortcut_writes_the_bytes_that_the_sdk_would(app, broker, both_ways, given):
    """Whatever visitor, tags and attributes: same fields, order, numbers, unicode, and endpoint."""
    client, seen = both_ways
    visitor, tags, attributes = given

    client.track("purchase", visitor, attributes, tags)
    client.create_user_context(visitor, attributes).decide("checkout")

    assert all(ours == theirs and url == to for ours, theirs, url, to in seen)


def test_the_shortcut_is_taken_where_it_can_be(app, broker, both_ways):
    """Or the test before this one shows nothing."""
    client, seen = both_ways

    client.track("purchase", "v", {"plan": "gold"}, {"revenue": 1, "sku": "ü"})
    client.activate("one_page", "v")
    client.create_user_context("v").decide("checkout")
    client.track("purchase", "v", None, {"revenue": None})

    assert len(seen) == 3
    assert len(set(uuids_in(json.dumps(params).encode() for params in queued(broker)))) == 4


def test_an_sdk_that_builds_its_events_otherwise_is_followed(app, broker, monkeypatch):
    """The first event of each kind is compared; a difference closes the shortcut."""
    original = EventFactory.create_log_event.__func__

    def with_a_field(cls, *args):
        log_event = original(cls, *args)
        log_event.params["visitors"][0]["session_id"] = "new in this version"
        return log_event

    monkeypatch.setattr(EventFactory, "create_log_event", classmethod(with_a_field))
    client = client_with()

    client.track("purchase", "v-1")
    client.track("purchase", "v-2")

    assert ["session_id" in p["visitors"][0] for p in queued(broker)] == [True, True]


def test_an_sdk_without_the_shortcuts_foothold_is_followed(app, broker, monkeypatch):
    """A later SDK may cost the shortcut, but no event."""
    monkeypatch.setattr(visitor_text, "_visitor_of", _no_such_method)

    client_with().track("purchase", "v")

    assert len(queued(broker)) == 1


def _no_such_method(*_):
    raise TypeError


def test_the_shortcut_forgets_old_contexts(app, broker, monkeypatch):
    """A datafile that changes for months does not fill the memory."""
    monkeypatch.setattr(visitor_text, "_KEPT", 2)
    client = client_with()

    for revision in range(5):
        client.config_manager.get_config().revision = str(revision)
        client.track("purchase", "v")

    assert [params["revision"] for params in queued(broker)] == ["0", "1", "2", "3", "4"]
    assert len(client.event_processor._visitor_text._contexts) <= 2


def test_a_visitor_that_is_too_large_is_refused_on_the_shortcut_too(app, broker):
    """The limit holds whichever way an event takes, and the refusal is counted."""
    client = client_with()

    client.track("purchase", "v", event_tags={"sku": "a"})
    client.track("purchase", "v", event_tags={"sku": "a" * 4_000_000})

    assert len(queued(broker)) == 1
    assert stats()["refused"] == {"too_large": 1}
