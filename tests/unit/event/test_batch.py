"""Taking an event apart by its visitors, and putting parts together again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optly_celery.event.batch import join, split
from optly_celery.event.event import Event

from ...support import US_URL, params_of, visitor_of

_values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just({"a": [1, 2.5]})
_contexts = st.lists(st.tuples(st.text(max_size=5), _values), max_size=4)
_visitors = st.lists(
    st.sampled_from(["ann", "bob"]).map(lambda name: visitor_of(name, "u")) | _values, max_size=9
)


@st.composite
def _events(draw):
    """Events whose ``visitors`` stand anywhere among the other keys."""
    before, after = draw(_contexts), draw(_contexts)
    params = dict([*before, ("visitors", draw(_visitors)), *after])
    params["visitors"] = params["visitors"] if isinstance(params["visitors"], list) else []
    return Event.of(US_URL, params, "POST", draw(st.none() | st.just({"A": "b"})))


@settings(deadline=None)
@given(event=_events())
def test_split_and_join_change_nothing(event):
    """Both halves have the whole context in its order; together they have every visitor once."""
    if len(event.visitors) < 2:
        return
    halves = split(event)

    assert [v for half in halves for v in half.visitors] == event.visitors
    assert abs(len(halves[0].visitors) - len(halves[1].visitors)) <= 1
    for half in halves:
        assert (half.url, half.verb, half.headers) == (event.url, event.verb, event.headers)
        assert half.body == json.dumps({**event.params, "visitors": half.visitors})
    assert join(halves) == event
    assert join(halves).body == event.body


@settings(deadline=None)
@given(event=_events(), data=st.data())
def test_any_parts_in_their_order_join_to_what_is_left(event, data):
    """Split as often as one likes, leave some out: the others keep context and order."""
    parts = [event]
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(parts) - 1))
        if len(parts[at].visitors) > 1:
            parts[at : at + 1] = split(parts[at])
    left = [part for part in parts if data.draw(st.booleans())] or parts

    rest = join(left)

    assert rest.visitors == [visitor for part in left for visitor in part.visitors]
    assert list(rest.params) == list(event.params)
    assert rest.params == {**event.params, "visitors": rest.visitors}


def test_the_event_that_is_split_is_left_as_it_is():
    """Its params belong to whoever made it."""
    params = params_of()
    params["visitors"].append(visitor_of("b", "2"))
    before = json.dumps(params)

    split(Event.of(US_URL, params))

    assert json.dumps(params) == before


@pytest.mark.parametrize("visitors", [[], [visitor_of("a", "1")], None, "ab", {"a": 1, "b": 2}])
def test_fewer_than_two_visitors_cannot_be_split(visitors):
    """A bug of the caller's."""
    with pytest.raises(ValueError, match="fewer than two visitors"):
        split(Event.of(US_URL, {"visitors": visitors}))


def test_one_part_is_the_whole():
    """Nothing was taken away, so nothing is made anew."""
    event = Event.of(US_URL, {"no": "visitors"})

    assert join([event]) is event
