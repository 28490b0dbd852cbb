"""What people put into event tags, as JSON has it."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections import OrderedDict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optly_celery.errors import NotAnEventError
from optly_celery.sdk.plain_json import MAX_DEPTH, plain


class Plan(enum.Enum):
    """An Enum."""

    GOLD = "gold"
    PRICE = Decimal("9.5")


class Tier(str, enum.Enum):
    """One that is text as well."""

    ONE = "one"


class Level(enum.IntEnum):
    """One that is a number as well."""

    TWO = 2


class Text(str):  # noqa: SLOT000
    """Such as Django's SafeString."""

    def __str__(self):
        return "<safe>"


class Lazy:
    """Django's SimpleLazyObject around text: claims to be text, and is not."""

    __class__ = str  # type: ignore[assignment]

    def __str__(self):
        return "lazy"


# What Django's ``gettext_lazy`` returns, as far as it can be told without Django.
Promise = type("Promise", (), {"__module__": "django.utils.functional"})
Proxy = type("__proxy__", (Promise,), {"__str__": lambda _: "Grüße"})

Point = namedtuple("Point", "x y")  # noqa: PYI024

UTC = timezone.utc
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (Decimal("19.90"), 19.9),
        (Decimal("4200.00"), 4200),
        (Decimal("1E+3"), 1000),
        (Decimal("-0.0"), 0),
        (Decimal("1E-999999"), 0.0),
        (Decimal(2**60 + 1), 2**60 + 1),
        (Fraction(1, 4), 0.25),
        (datetime(2024, 2, 29, 12, 0, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (datetime(2024, 2, 29, 12, 0, 0, 5), "2024-02-29T12:00:00.000005"),  # noqa: DTZ001
        (date(2024, 2, 29), "2024-02-29"),
        (time(12, 30), "12:30:00"),
        (ID, str(ID)),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({"a", 1, None}, [None, 1, "a"]),
        ({"x": 1}.keys(), ["x"]),
        ((1, "a"), [1, "a"]),
        (Point(1, 2), [1, 2]),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"a"), "a"),
        (memoryview(b"a"), "a"),
        (Plan.GOLD, "gold"),
        (Plan.PRICE, 9.5),
        (Tier.ONE, "one"),
        (Level.TWO, 2),
        (Text("text"), "text"),
        (Lazy(), "lazy"),
        (Proxy(), "Grüße"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": Decimal(1)}), {"a": 1}),
        ({1: "a", False: "b"}, {"1": "a", "false": "b"}),
        ({None: 1, 2.5: 2, ID: 3, Plan.GOLD: 4}, {"null": 1, "2.5": 2, str(ID): 3, "gold": 4}),
        ([{"deep": ({Decimal("1.5")},)}], [{"deep": [[1.5]]}]),
    ],
    ids=lambda value: type(value).__name__,  # the same in each process that collects
)
def test_a_value_becomes_its_json_form(value, form):
    """Equal, and of Python's own types, so that ``true`` is not ``1``."""
    found = plain(value)

    assert json.dumps(found) == json.dumps(form)
    assert _kinds(found) <= {str, int, float, bool, type(None), list, dict}


def _cyclic(kind):
    inner: dict = {}
    cycle = [inner] if kind is list else {"inner": [inner]}
    inner["outer"] = cycle
    return cycle


def _unfolding():
    """A hundred lists that unfold into 2 ** 60 values."""
    shared: list = []
    for _ in range(60):
        shared = [shared, shared]
    return shared


def _deep(levels):
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


class Opaque:
    """An object of the app."""

    def __init__(self):
        self.card_number = "4111"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not_finite"),
        (-math.inf, "not_finite"),
        (Decimal("NaN"), "not_finite"),
        (Decimal("sNaN"), "not_finite"),
        (Decimal("-Infinity"), "not_finite"),
        (Decimal("1E+999999"), "not_finite"),
        (10**5000, "not_finite"),
        ([1, [float("inf")]], "not_finite"),
        (_cyclic(list), "cycle"),
        (_cyclic(dict), "cycle"),
        (_deep(MAX_DEPTH + 1), "too_deep"),
        (_unfolding(), "too_large"),
        (b"\xff\xfe", "bytes_not_text"),
        ({1: "a", "1": "b"}, "key_twice"),
        ({(1, 2): "a"}, "no_json_form"),
        (Opaque(), "no_json_form"),
        (timedelta(1), "no_json_form"),
        (complex(1, 2), "no_json_form"),
        (iter([1]), "no_json_form"),
        (len, "no_json_form"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_has_no_json_form_is_refused_with_the_reason(value, reason):
    """And the message holds nothing of it, as it is logged."""
    with pytest.raises(NotAnEventError) as raised:
        plain({"tag": value})

    assert raised.value.reason == reason
    assert "4111" not in str(raised.value)


def test_one_list_in_two_places_is_no_cycle():
    """Only a list inside itself has no JSON form; one that is used twice is written twice."""
    shared = [Decimal("1.5")]

    assert plain({"a": shared, "b": shared}) == {"a": [1.5], "b": [1.5]}


def test_as_many_levels_as_are_allowed_pass():
    """The limit itself is within the limit."""
    assert plain(_deep(MAX_DEPTH)) == _deep(MAX_DEPTH)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_already_comes_back_as_the_same_object(value):
    """No copy, no change: the fast way for nearly everybody."""
    assert plain(value) is value


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_digits_as_far_as_a_double_has_them(value):
    """A whole one all of them; another is the double nearest to it."""
    try:
        found = plain(value)
    except NotAnEventError:
        assert value.adjusted() > 307
        return
    assert found == value if isinstance(found, int) else found == float(value)
    assert json.loads(json.dumps(found)) == found


HOSTILE = st.recursive(
    st.decimals() | st.datetimes() | st.dates() | st.times() | st.uuids() | st.binary()
    | st.floats() | st.complex_numbers() | st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers() | st.dates() | st.booleans(), inner, max_size=3),
    max_leaves=15,
)  # fmt: skip


@given(HOSTILE)
def test_whatever_is_given_is_json_or_refused(value):
    """Nothing else is raised, and the result is what strict JSON takes."""
    before = repr(value)
    try:
        found = plain(value)
    except NotAnEventError:
        pass
    else:
        assert _kinds(found) <= {str, int, float, bool, type(None), list, dict}
        json.dumps(found, allow_nan=False)
    assert repr(value) == before


@given(st.sets(st.integers() | st.text()))
def test_a_set_has_one_form_whatever_its_order(value):
    """Equal sets give equal text, so that a retry of the app sends the same."""
    assert plain(value) == plain(frozenset(reversed(list(value))))


def test_numpys_scalars_become_numbers():
    """Flags, text, arrays and times come along; what is not finite has no JSON form here either."""
    np = pytest.importorskip("numpy")

    tags = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "d": np.float64(0.1),
        "b": np.bool_(True),
        "s": np.str_("s"),
        "a": np.array([[1, 2]]),
        "t": np.datetime64("2024-02-29T12:00", "ns"),
    }

    assert json.dumps(plain(tags)) == json.dumps(
        {"i": 3, "f": 0.5, "d": 0.1, "b": True, "s": "s", "a": [[1, 2]]}
        | {"t": "2024-02-29T12:00:00.000000000"}
    )
    for value in (
        np.float64("nan"),
        np.float32("inf"),
        np.timedelta64(1, "D"),
        np.datetime64("NaT", "s"),
    ):
        with pytest.raises(NotAnEventError):
            plain(value)


def test_djangos_lazy_text_becomes_text():
    """A translated label, or a lazy object around text, arrives as what it stands for."""
    functional = pytest.importorskip("django.utils.functional")

    lazy = functional.lazy(lambda: "Grüße", str)

    assert plain(lazy()) == "Grüße"
    assert plain(functional.SimpleLazyObject(lambda: "user-1")) == "user-1"


def _kinds(value):
    if isinstance(value, list):
        return {list}.union(*map(_kinds, value))
    if isinstance(value, dict):
        return {dict}.union(*map(_kinds, value), *map(_kinds, value.values()))
    return {type(value)}
