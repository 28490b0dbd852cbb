"""Try again or not, and when."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optly_celery.deliver.retry import (
    RetryPolicy,
    Verdict,
    is_splittable,
    retry_after_s,
    verdict,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)


def test_each_status_has_its_verdict():
    """2xx is delivered, other 3xx and 4xx refused; all else is trouble, or no answer at all."""
    expected = dict.fromkeys(range(1000), Verdict.TRANSIENT)
    expected |= dict.fromkeys(range(200, 300), Verdict.DELIVERED)
    expected |= dict.fromkeys(range(300, 500), Verdict.PERMANENT)
    expected |= dict.fromkeys([408, 425, 429], Verdict.TRANSIENT)

    assert {status: verdict(status) for status in range(1000)} == expected


def test_only_a_refusal_of_the_content_may_be_about_one_visitor():
    """A wrong address or a missing right concerns all visitors alike."""
    assert [s for s in (None, *range(100, 600)) if is_splittable(s)] == [400, 413, 422]


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("\t7\t", 7.0),
        ("007", 7.0),
        ("3.5", 3.5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.0", 0.0),
        (" 3.50 ", 3.5),
        ("0.0000000001", 1e-10),
        ("1." + "0" * 5_000, 1.0),
        ("86400.25", 86_400.25),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120.0),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120.0),
        ("Sun Mar  1 12:02:00 2026", 120.0),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120.0),
        ("Sun, 01 Mar 2026 13:02:00 +0100", 120.0),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(header, wait_s):
    """All three forms of an HTTP date; one that has passed means now."""
    assert retry_after_s(header, NOW) == wait_s


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "soon",
        "-1",
        "-1.5",
        "-0.0",
        "+1.5",
        "1.5.2",
        "1,5",
        "1 .5",
        "1. 5",
        ".",
        "1e3",
        "1e9",
        "1.5e3",
        "1E-3",
        "inf",
        "Infinity",
        "-inf",
        "nan",
        "0x10",
        "1_000",
        "1.5s",
        "1.5 seconds",
        "PT3.5S",
        "3.5; 4",
        "\u0663.\u0665",
        "3\u066b5",
        "\u00a03.5",
        "3.5\n4",
        "٣",  # a digit, but not of HTTP
        "²",
        "1, 2",
        "2026-03-01T12:02:00Z",
        "Sun, 99 Mar 2026 12:02:00 GMT",
        "Sun, 01 Mar 2026 99:02:00 GMT",
        "Sun, 01 Mar 3000000000 12:02:00 GMT",
        "Sun, 01 Mar 2026 12:02:00 +99999999999999999999",
    ],
)
def test_a_retry_after_that_cannot_be_read_asks_for_nothing(header):
    """Rubbish in a header is the endpoint's mistake, not a reason to fail."""
    assert retry_after_s(header, NOW) is None


def test_a_retry_after_beyond_all_measure_is_still_a_number():
    """The policy cuts it to the longest backoff."""
    for header in ("9" * 400, "9" * 10**5, "9" * 400 + ".5", "1" + "0" * 10):
        assert 10**8 <= retry_after_s(header, NOW) < math.inf


@settings(max_examples=150, deadline=None)
@given(
    header=st.text(max_size=40)
    | st.datetimes(timezones=st.just(timezone.utc)).map(format_datetime)
    | st.from_regex(r"\A\d{1,3} (Jan|Dec|Foo) \d{1,12} \d{1,3}:\d{1,3} [+-]?\d{1,25}\Z")
)
def test_no_retry_after_raises_or_goes_back_in_time(header):
    """Whatever an endpoint says, the attempt ends as what it was."""
    wait_s = retry_after_s(header, NOW)

    assert wait_s is None or wait_s >= 0


@given(wait=st.integers(0, 10**6))
def test_a_date_and_its_seconds_ask_for_the_same(wait):
    """One wait, written in both ways."""
    date = format_datetime(NOW + timedelta(seconds=wait), usegmt=True)

    assert retry_after_s(date, NOW) == retry_after_s(str(wait), NOW) == wait


def test_the_backoff_doubles_up_to_its_maximum():
    """From the base on, and never more than the maximum."""
    policy = _policy(base_backoff_s=2.0, max_backoff_s=60.0)

    assert [policy.backoff_s(n) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("attempt", [65, 301, 5_000, 10**9])
def test_late_attempts_wait_the_maximum(attempt):
    """Doubling a thousand times would leave the range of a float."""
    assert _policy(max_backoff_s=300.0).backoff_s(attempt) == 300.0


def test_jitter_takes_off_up_to_a_half():
    """Workers that failed together do not come back together, nor at once."""
    lows = _policy(base_backoff_s=2.0, max_backoff_s=60.0, rand=lambda: 0.0)

    assert [lows.backoff_s(n) for n in (1, 2, 7)] == [1.0, 2.0, 30.0]


@pytest.mark.parametrize(
    ("rand", "at_least_s", "wait_s"),
    [
        (0.0, 20.0, 20.0),  # as asked
        (1.0, 20.0, 22.0),  # and up to a tenth more
        (1.0, 1.0, 2.0),  # the backoff is longer
        (0.0, 0.0, 1.0),
        (1.0, 60.0, 60.0),  # the maximum holds
        (0.0, 10**9, 60.0),
        (0.0, None, 1.0),
    ],
)
def test_what_the_endpoint_asks_for_raises_the_wait(rand, at_least_s, wait_s):
    """Up to the longest backoff, which Settings compares with the visibility timeout."""
    policy = _policy(base_backoff_s=2.0, max_backoff_s=60.0, rand=lambda: rand)

    assert policy.backoff_s(1, at_least_s) == pytest.approx(wait_s)


@given(
    attempt=st.integers(1, 10**6),
    base=st.floats(0.01, 100),
    extra=st.floats(0, 10**5),
    rand=st.floats(0, 1),
    asked=st.none() | st.floats(0, 10**10),
)
def test_a_wait_is_never_none_and_never_over_the_maximum(attempt, base, extra, rand, asked):
    """Longer than the maximum, and Redis would hand the message out a second time."""
    policy = _policy(base_backoff_s=base, max_backoff_s=base + extra, rand=lambda: rand)

    assert base / 2 <= policy.backoff_s(attempt, asked) <= base + extra


def test_it_gives_up_with_the_last_attempt_or_for_age():
    """Attempt 1 is the first; an event may be old as long as it does not fail."""
    policy = _policy(max_attempts=3, max_age_s=100.0)

    assert [policy.gives_up(n, 0.0) for n in (1, 2, 3, 4)] == [
        None, None, "attempts_exhausted", "attempts_exhausted",
    ]  # fmt: skip
    assert policy.gives_up(1, 100.0) is None
    assert policy.gives_up(1, 100.1) == "too_old"


def test_one_attempt_may_be_all():
    """``optly_max_retries = 0``."""
    assert _policy(max_attempts=1).gives_up(1, 0.0) == "attempts_exhausted"


def _policy(**fields):
    return RetryPolicy(**{"max_attempts": 301, "base_backoff_s": 1.0, "rand": lambda: 1.0} | fields)
