"""What is an event, and that its payload is the same on both sides of the queue."""

from __future__ import annotations

import json
import traceback
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from optly_celery.errors import NotAnEventError
from optly_celery.event.event import MAX_OBJECT_BYTES, Event
from optly_celery.event.summary import is_summary, summarise

from ...support import US_URL, params_of, visitor_of

JSON_HEADERS = {"Content-Type": "application/json"}

# Keys that mean something to a decoder on the way, beside any text there is. Surrogates are
# left in: an attribute cut in the middle of an emoji has a lone one.
_text = st.text(st.characters(codec=None), max_size=12)
_keys = _text | st.sampled_from(["__type__", "__value__", "__json__", "visitors", "", '"__type__"'])
_numbers = (
    st.integers() | st.integers(10**20, 10**40) | st.floats(allow_nan=False, allow_infinity=False)
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | _numbers
    | _text
    | st.sampled_from(["__type__", "bytes", "decimal"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=12,
)
_params = st.dictionaries(_keys, _values, max_size=5)
_headers = st.none() | st.dictionaries(_text, _text, max_size=2)


@settings(max_examples=200, deadline=None)
@given(params=_params, headers=_headers)
def test_the_payload_is_the_same_before_and_after_the_queue(params, headers):
    """Byte for byte what ``json.dumps`` made of it in the app, whatever it holds."""
    event = Event.of(US_URL, params, "POST", headers)

    received = _through_the_broker(event.message_body)

    assert event.body == json.dumps(params)
    assert received.body == json.dumps(params)
    assert (received.url, received.verb, received.headers) == (US_URL, "POST", headers)


@settings(max_examples=200, deadline=None)
@given(params=_params)
def test_the_payload_is_the_same_after_a_retry(params):
    """A retry is encoded again, by Celery; three of them change nothing."""
    event = Event.of(US_URL, params)

    for _ in range(3):
        args = [event.url, event.verb, event.wire_params]
        message = kombu_json.dumps([args, {"headers": event.headers}, {}])
        event = _through_the_broker(message)

    assert event.body == json.dumps(params)


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "decimal", "__value__": "1.50"},
        {"__type__": "unheard-of", "__value__": 1},
        {"__type__": "datetime", "__value__": "no date"},
    ],
)
def test_what_kombu_takes_for_an_encoded_object_comes_through_unchanged(value):
    """Its decoder would make a Decimal of one and refuse the others; params go as text then."""
    params = {"visitors": [{"attributes": [{"value": value}]}]}

    received = _through_the_broker(Event.of(US_URL, params).message_body)

    assert received.body == json.dumps(params)


def test_the_message_body_is_celerys_protocol_2():
    """Args, kwargs and embed, as any producer would write them."""
    params = params_of()

    args, kwargs, embed = json.loads(Event.of(US_URL, params, "post", JSON_HEADERS).message_body)

    assert args == [US_URL, "POST", params]
    assert kwargs == {"headers": JSON_HEADERS}
    assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.mark.parametrize(
    "url", [None, "", "  \n", 7, b"https://logx.optimizely.com", ["https://a"]]
)
def test_without_a_url_there_is_no_event(url):
    """Anything but text with something in it."""
    assert _reason(url, params_of()) == "no_url"


@pytest.mark.parametrize("verb", ["", "PUT", "DELETE", "G E T", 7, b"POST", ["POST"]])
def test_a_verb_other_than_get_and_post_is_refused(verb):
    """The SDK has no other."""
    assert _reason(US_URL, params_of(), verb) == "bad_verb"


@pytest.mark.parametrize(("verb", "meant"), [("get", "GET"), ("Post", "POST"), (None, "POST")])
def test_a_verb_is_read_in_any_case_and_defaults_to_post(verb, meant):
    """As requests does; an event without a verb is what the SDK sends today."""
    assert Event.of(US_URL, params_of(), verb).verb == meant


@pytest.mark.parametrize(
    "headers", ["Content-Type: a", [("a", "b")], {"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}, 7]
)
def test_headers_other_than_text_by_text_are_refused(headers):
    """They could not be sent."""
    assert _reason(US_URL, params_of(), "POST", headers) == "bad_headers"


def test_headers_are_taken_as_they_are_now():
    """A mapping of any kind is copied: what the SDK does with its own later changes nothing."""
    given = {"Content-Type": "application/json"}
    event = Event.of(US_URL, params_of(), "POST", types.MappingProxyType(given))

    given["X-Late"] = "1"

    assert event.headers == JSON_HEADERS
    assert json.loads(event.message_body)[1] == {"headers": JSON_HEADERS}


def _cycle():
    params = params_of()
    params["self"] = params
    return params


def _deep():
    value: list = []
    for _ in range(100_000):
        value = [value]
    return {"visitors": value}


@pytest.mark.parametrize(
    "params",
    [
        {"visitors": [{"attributes": [{"value": object()}]}]},
        {"value": float("nan")},
        {"value": [float("inf")]},
        {("a", "b"): 1},
        {"value": {1, 2}},
        {"value": b"bytes"},
        _cycle(),
        _deep(),
        {"value": 10**5000},
        "{not json",
        '{"value": 1e999}',
        object(),
    ],
    ids=lambda params: type(params).__name__,
)
def test_params_that_are_not_json_are_refused(params):
    """What JSON cannot say, or not without loss, is no payload."""
    assert _reason(US_URL, params) == "params_not_json"


@pytest.mark.parametrize("params", [None, [], "[]", '"text"', 7, True, "null"])
def test_params_that_are_no_object_are_refused(params):
    """The Event API takes an object."""
    assert _reason(US_URL, params) == "params_not_an_object"


def test_a_visitor_that_the_endpoint_cannot_take_is_refused():
    """One object of more than 3.5 MB is refused by Optimizely, however often it is sent."""
    params = params_of(note="x" * MAX_OBJECT_BYTES)

    assert _reason(US_URL, params) == "too_large"


def test_several_visitors_may_be_larger_together():
    """A worker takes them apart when the endpoint says so."""
    params = {"visitors": [visitor_of("a" * (MAX_OBJECT_BYTES - 10), "1"), visitor_of("b", "2")]}

    assert len(Event.of(US_URL, params).body) > MAX_OBJECT_BYTES


@pytest.mark.parametrize(
    "params",
    [{"secret": object()}, {"secret-1": float("nan")}, "secret", {"a": "secret" * 10**6}],
)
def test_a_refusal_does_not_quote_the_event(params):
    """The message goes into a log."""
    with pytest.raises(NotAnEventError) as refusal:
        Event.of(US_URL, params, "POST")

    assert "secret" not in str(refusal.value)
    assert "secret" not in "".join(traceback.format_exception(refusal.value))


def test_the_summary_says_what_an_operator_needs():
    """Verb, host, project, number of the SDK's events, size."""
    params = params_of()
    params["visitors"].append(visitor_of("b", "2"))
    event = Event.of(US_URL, params)

    size = len(json.dumps(params))
    assert event.summary == f"POST logx.optimizely.com, project 111001, 2 events, {size} B"
    assert repr(event) == f"<Event {event.summary}>"


@pytest.mark.parametrize(
    ("length", "shown"),
    [(999, "999 B"), (1_000, "1.0 kB"), (12_345, "12.3 kB"), (3_400_000, "3.4 MB")],
)
def test_sizes_are_shown_in_a_unit_that_fits(length, shown):
    """Bytes, kilobytes, megabytes, of the body as it is sent."""
    empty = len(json.dumps({"a": ""}))

    assert Event.of(US_URL, {"a": "x" * (length - empty)}).summary.endswith(f", {shown}")


def test_one_event_is_not_called_events():
    """Read by people."""
    assert ", 1 event, " in Event.of(US_URL, params_of()).summary


@pytest.mark.parametrize(
    "project",
    [
        "ann@example.com",
        "Ann Smith",
        "x" * 33,
        "Än",
        "1\n2",
        ["ann"],
        {"ann": 1},
        None,
        1.5,
        "",
        10**40,
    ],
)
def test_a_project_id_that_does_not_look_like_one_is_not_shown(project):
    """Whoever builds params by hand may put anything there."""
    assert ", project unknown, " in Event.of(US_URL, params_of(project_id=project)).summary


@pytest.mark.parametrize(
    "url",
    [
        "https://ann@[bad/",
        "ann@example.com",
        "/visitors/ann",
        "https://än.example/",
        "https://" + "ann." * 100,
        "https://ann smith/",
        "https://ann\x1b[31m/",
    ],
)
def test_a_host_that_does_not_look_like_one_is_not_shown(url):
    """Nor is it let into a terminal or a log line."""
    assert Event.of(url, params_of()).summary.startswith("POST unknown, project 111001")


def test_user_password_path_and_query_of_a_url_are_not_shown():
    """Of a URL only the host tells nothing about a person."""
    summary = Event.of("https://ann:pw@HOST.example:1/v1/ann?visitor=ann", params_of()).summary

    assert summary.startswith("POST host.example, project ")
    assert "ann" not in summary


@settings(max_examples=100, deadline=None)
@given(secret=st.text(st.characters(codec="utf-8"), min_size=6, max_size=30).map("ANN".__add__))
def test_no_personal_data_is_in_summary_or_repr(secret):
    """Ids, attributes, tags, unknown keys: wherever it stands in the payload."""
    params = params_of(secret, secret, account_id=secret, revision=secret, client_name=secret)
    params[secret] = secret
    event = Event.of(US_URL, params, "POST", {"X-Header": secret})

    assert secret not in event.summary
    assert secret not in repr(event)


@pytest.mark.parametrize(
    "visitors",
    [None, "ann", 7, {}, [None], [{"snapshots": 7}], [{"snapshots": [7, {"events": 7}]}], [[]]],
)
def test_params_of_any_shape_have_a_summary(visitors):
    """Counting is no reason to fail: what cannot be counted counts nothing."""
    assert ", 0 events, " in Event.of(US_URL, {"visitors": visitors}).summary


def test_arguments_that_are_no_event_can_be_kept_as_they_are():
    """A poison message has a summary too, and lets nobody see more than that."""
    event = Event.raw(7, ["ann"], None, "headers")

    assert event.summary == "? unknown, project unknown, 0 events, 7 B"
    assert event.body == '["ann"]'


def _through_the_broker(message_body):
    """What the worker makes of a message: kombu decodes it, the task builds the event again."""
    (url, verb, params), kwargs, _ = kombu_json.loads(message_body.encode())
    return Event.of(url, params, verb, **kwargs)


def _reason(*parts):
    with pytest.raises(NotAnEventError) as refusal:
        Event.of(*parts)
    return refusal.value.reason


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"b":1,  "a":1.0}', '{"b":1,  "a":1.0}'),
        ('{"a": "\\u00e9"}', '{"a": "\\u00e9"}'),
        ('{"a": "é"}', '{"a": "\\u00e9"}'),
        ('{"a": 1e400e}', None),
        ('{"a": NaN}', None),
    ],
)
def test_params_as_text_are_the_body_as_they_stand(text, body):
    """Once they are seen to be JSON, and ASCII, so that their length is their size."""
    if body is None:
        with pytest.raises(NotAnEventError):
            Event.of(US_URL, text)
    else:
        event = Event.of(US_URL, text)
        assert event.body == body
        assert event.params == json.loads(text)


def test_text_of_this_package_is_read_when_somebody_asks_for_a_part_of_it():
    """It was checked when it was written, and is posted and published again as it stands."""
    text = json.dumps(params_of())
    event = Event.of(US_URL, text, ours=True)

    assert event.body is event.wire_params is text
    assert event == Event.of(US_URL, text, ours=True)
    assert (event.params, event.event_count) == (params_of(), Event.of(US_URL, text).event_count)
    assert event.summary == Event.of(US_URL, text).summary


def test_damaged_text_of_this_package_stays_as_it_is():
    """It is an event without visitors, which the endpoint refuses as a whole."""
    event = Event.of(US_URL, '{"visitors": [', ours=True)

    assert (event.body, event.params, event.visitors) == (*['{"visitors": ['] * 2, [])
    assert event.summary == "POST logx.optimizely.com, project unknown, 0 events, 14 B"


def test_text_that_is_not_ascii_is_written_anew_whoever_wrote_it():
    """The length of a body is its size."""
    assert Event.of(US_URL, '{"a": "é"}', ours=True).body == '{"a": "\\u00e9"}'


@pytest.mark.parametrize("value", ["a1e123", "1e123", "9b1e1234-0"])
def test_text_with_what_looks_like_a_number_in_a_string_stands(value):
    """A uuid in which an e is followed by three digits is no number."""
    text = json.dumps({"uuid": value}, separators=(",", ":"))

    assert Event.of(US_URL, text).body is text


@pytest.mark.parametrize(
    "text", ['{"a": 1e123}', '{"a":-1.5E+123}', '{"a": [2,\n1e0123]}', '{"a":[1e123]}']
)
def test_numbers_that_may_be_too_large_are_written_anew(text):
    """Python reads too large a one as infinity, and then refuses it."""
    assert Event.of(US_URL, text).body == json.dumps(json.loads(text)) != text


@pytest.fixture
def unreadable(monkeypatch):
    """Whoever reads an event's text fails."""
    monkeypatch.setattr("optly_celery.event.event._decode", None)


def test_what_is_made_of_context_and_visitors_is_never_read(unreadable):
    """The client and the relay know all that a message says, so nothing is parsed for it."""
    known = Event.of(US_URL, params_of("a", "u-1"), "POST", JSON_HEADERS)

    event = Event.whole(known.context, f"{known.visitors_text}, {known.visitors_text}", 2)

    assert event.summary.split(", ")[1:3] == ["project 111001", "2 events"]
    assert json.loads(event.message_body)[1] == {"headers": JSON_HEADERS}
    assert (event.url, event.headers, event.context) == (US_URL, JSON_HEADERS, known.context)


def test_text_of_this_package_brings_its_summary_along(unreadable):
    """A batch that is to be attempted again is not parsed for the line that is shown of it."""
    text = json.dumps(params_of())
    shown = Event.of(US_URL, params_of()).summary

    assert Event.of(US_URL, text, ours=True, summary=shown).summary == shown


@pytest.mark.parametrize(
    "shown",
    [
        Event.of(US_URL, params_of()).summary,
        Event.raw(7, ["ann"], None, "headers").summary,
        Event.raw("https://h:1/x", {"project_id": "a" * 32}, "GET", None).summary,
        summarise("POST", US_URL, "1", 100, 12_300_000),
    ],
)
def test_a_summary_is_known_when_it_is_seen(shown):
    """What stands in a message's header is shown only where it has this form."""
    assert is_summary(shown)
    for other in (shown + "x", f"x{shown}", shown.replace("project", "visitor"), shown + "\n", 7):
        assert not is_summary(other)
