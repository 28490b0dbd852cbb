"""Merging: what may share a batch, and that nothing changes by it."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optly_celery.event.batch import merge, split
from optly_celery.event.context import _known
from optly_celery.event.event import Event

from ...support import US_URL, params_of, visitor_of

NO_LIMIT = {"max_events": 1 << 30, "max_bytes": 1 << 30}

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
visitors = st.lists(
    st.dictionaries(st.sampled_from(["visitor_id", "visitors", "snapshots"]), values, max_size=3),
    max_size=3,
)


@st.composite
def all_params(draw):
    """Params with visitors anywhere among few keys of few values, so that contexts meet."""
    few = st.sampled_from([True, 1, 1.0, None, "1", '"visitors": [', {"visitors": [1]}, []])
    keys = draw(st.permutations(["visitors", "project_id", "revision", "é"]))
    params = {key: draw(few) for key in keys if draw(st.booleans())}
    if draw(st.integers(0, 9)):
        params = {k: draw(visitors) if k == "visitors" else v for k, v in params.items()}
        params.setdefault("visitors", draw(visitors))
    return params


events = st.lists(
    st.builds(
        Event.of,
        st.sampled_from([US_URL, "https://eu.logx.optimizely.com/v1/events"]),
        all_params(),
        st.sampled_from(["POST", "POST", "POST", "GET"]),
        st.sampled_from([None, {"a": "b"}, {"a": "c"}]),
    ),
    max_size=12,
)


def context_of(url, verb, headers, params):
    rest = {k: v for k, v in params.items() if k != "visitors"}
    return json.dumps([url, verb, headers, rest], sort_keys=True)


def pairs_of(found):
    """The (context, visitor) pairs of events; an event without visitors is one pair."""
    pairs = []
    for url, verb, headers, params in found:
        context = context_of(url, verb, headers, params)
        listed = params.get("visitors")
        if verb == "POST" and isinstance(listed, list) and listed:
            pairs += [(context, json.dumps(visitor)) for visitor in listed]
        else:
            pairs.append((context, json.dumps(listed)))
    return pairs


def parts_of(event):
    return event.url, event.verb, event.headers, event.params


def unpack(batch):
    args, kwargs, _ = json.loads(batch.message_body)
    url, verb, params = args
    params = json.loads(params) if isinstance(params, str) else params
    return url, verb, kwargs["headers"], params


@given(events)
def test_an_event_taken_apart_is_its_body_again(found):
    """Context and visitors, put together, are the SDK's JSON byte for byte."""
    for event in found:
        again = Event.whole(event.context, event.visitors_text, event.event_count)
        assert again == event
        assert (again.body, again.summary) == (event.body, event.summary)


def test_contexts_that_were_seen_do_not_pile_up():
    """A datafile that changes for months fills no memory; what is forgotten is read anew."""
    for number in [*range(250), *range(250)]:
        event = Event.of(US_URL, params_of(revision=str(number)))
        assert Event.whole(event.context, event.visitors_text, 1).body == event.body

    assert 0 < len(_known) <= 100


@given(events, st.integers(1, 8), st.integers(1, 600))
def test_merging_keeps_every_pair_of_context_and_visitor(found, max_events, max_bytes):
    """The multiset of pairs is the same before and after, whatever the limits."""
    batches = merge(found, max_events=max_events, max_bytes=max_bytes)

    assert Counter(pairs_of(map(unpack, batches))) == Counter(pairs_of(map(parts_of, found)))


@given(events)
def test_merging_keeps_the_order_of_visitors_within_a_context(found):
    """Nobody's events overtake each other in one context."""
    batches = merge(found, **NO_LIMIT)

    before, after = (pairs_of(x) for x in (map(parts_of, found), map(unpack, batches)))
    for context in {context for context, _ in before}:
        wanted = [visitor for c, visitor in before if c == context]
        # GETs and the like travel alone, one by one, and so may keys in another order.
        assert Counter(wanted) == Counter(visitor for c, visitor in after if c == context)
    for context in {event.context for event in found if event.context.mergeable}:
        alike = [event for event in found if event.context == context]
        (batch,) = merge(alike, **NO_LIMIT)
        wanted = [v for event in alike for v in _visitors(event)]
        assert unpack(batch)[3]["visitors"] == wanted


def _visitors(event):
    return json.loads(f"[{event.visitors_text}]")


@given(events)
def test_merge_then_split_to_the_end_gives_the_pairs_again(found):
    """Splitting a batch until each visitor stands alone undoes the merge."""
    batches = merge(found, **NO_LIMIT)
    waiting = [Event.of(url, params, verb, headers)
               for url, verb, headers, params in map(unpack, batches)]  # fmt: skip
    alone = []
    while waiting:
        event = waiting.pop(0)
        if event.verb == "POST" and len(event.visitors) > 1:
            waiting[:0] = split(event)
        else:
            alone.append(event)

    assert Counter(pairs_of(map(parts_of, alone))) == Counter(pairs_of(map(parts_of, found)))


@pytest.mark.parametrize(
    ("url", "verb", "headers", "context"),
    [
        ("https://eu.logx.optimizely.com/v1/events", "POST", None, {}),
        (US_URL, "GET", None, {}),
        (US_URL, "POST", {"a": "b"}, {}),
        *[
            (US_URL, "POST", None, {key: value})
            for key, value in [
                ("account_id", "2"),
                ("project_id", "2"),
                ("revision", "43"),
                ("client_name", "java-sdk"),
                ("client_version", "4.0.0"),
                ("anonymize_ip", False),
                ("anonymize_ip", 1),
                ("enrich_decisions", False),
                ("region", "EU"),
                ("region", None),
                ("unknown", {"visitors": []}),
            ]
        ],
    ],
)
def test_events_that_differ_in_anything_but_visitors_never_share_a_batch(
    url, verb, headers, context
):
    """By presence and by value: true is not 1, absent is not null."""
    one = Event.of(US_URL, params_of("a", "u-1"))
    other = Event.of(url, params_of("b", "u-2", **context), verb, headers)
    again = Event.of(US_URL, params_of("c", "u-3"))

    batches = merge((one, other, again), **NO_LIMIT)

    ids = [[v["visitor_id"] for v in unpack(batch)[3]["visitors"]] for batch in batches]
    assert sorted(ids) == [["a", "c"], ["b"]]


def test_two_visitors_with_one_id_are_not_folded():
    """The same visitor twice stays twice: its events are told apart by uuid."""
    found = [Event.of(US_URL, params_of("same", uuid)) for uuid in ("u-1", "u-2")]

    (batch,) = merge(found, **NO_LIMIT)

    assert unpack(batch)[3]["visitors"] == [visitor_of("same", "u-1"), visitor_of("same", "u-2")]
    assert batch.summary.split(", ")[2] == "2 events"


def test_batches_stay_within_their_limits():
    """By events and by bytes; one event over a limit travels alone."""
    alone = [Event.of(US_URL, params_of(f"v-{n}", f"u-{n}")) for n in range(25)]
    parts = [
        Event.whole(e.context, e.visitors_text, e.event_count, enqueued_at=float(n))
        for n, e in enumerate(alone)
    ]
    one = len(next(merge(parts[:1], **NO_LIMIT)).body)

    by_events = list(merge(parts, max_events=10, max_bytes=1 << 30))
    by_bytes = list(merge(parts, max_events=100, max_bytes=one * 3))

    assert [batch.event_count for batch in by_events] == [10, 10, 5]
    assert [batch.enqueued_at for batch in by_events] == [0.0, 10.0, 20.0]
    assert all(len(batch.body) <= one * 3 for batch in by_bytes)
    assert [batch.event_count for batch in merge(parts[:3], max_events=1, max_bytes=1)] == [1, 1, 1]


def test_a_batch_travels_as_text_and_a_single_event_as_an_object():
    """Celery reads an object twice, slowly; a person reads a single one in the queue."""
    single, batch = (
        next(merge([Event.of(US_URL, params_of())] * count, max_events=10, max_bytes=10_000))
        for count in (1, 2)
    )
    assert isinstance(json.loads(single.message_body)[0][2], dict)
    assert json.loads(batch.message_body)[0][2] == batch.body


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "visitors": [ {"visitor_id": "v"} ] }',
        '{"a": 1,"visitors":[{"visitor_id": "v"}]}',
        '{"visitors": [{"visitor_id": "gone"}], "a": 1, "visitors": [{"visitor_id": "v"}]}',
    ],
    ids=["spaces", "no spaces", "twice"],
)
def test_params_as_text_share_a_batch_however_they_were_written(text):
    """Their text is no guide to where the visitors are; what Python reads of it is."""
    found = [Event.of(US_URL, params) for params in (text, {"a": 1, "visitors": [{"b": 2}]}, text)]
    batches = merge(found, **NO_LIMIT)

    assert Counter(pairs_of(map(unpack, batches))) == Counter(pairs_of(map(parts_of, found)))


@pytest.mark.parametrize(
    "params",
    [
        {"a": 1, "visitors": {"visitors": [1]}},
        {"a": {"visitors": [1]}, "visitors": [2]},
        {"a": '"visitors": [1', "visitors": [2]},
        {"a": 1, "visitors": []},
        {"a": 1, "visitors": None},
        {"a": 1, "visitors": (1, 2)},
        {"visitors": [1], "a": {"visitors": [2]}},
        {"a": 1},
    ],
    ids=json.dumps,
)
def test_visitors_are_those_at_the_top(params):
    """After an event of the usual form with the same beginning, too: beginnings are remembered."""
    usual = Event.of(US_URL, {"a": 1, "visitors": [0]})
    for event in (usual, Event.of(US_URL, params), usual, Event.of(US_URL, params)):
        context = event.context
        assert context.head + event.visitors_text + context.tail == event.body
        visitors = event.params.get("visitors")
        assert context.mergeable is (isinstance(visitors, list) and bool(visitors))
        if context.mergeable:
            assert _visitors(event) == visitors
