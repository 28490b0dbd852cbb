"""When a host is paused, probed and resumed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optly_celery.errors import PermanentDeliveryError, TransientDeliveryError
from optly_celery.worker.pause.policy import (
    LAST_PROBE_S,
    MOST_HOSTS,
    Change,
    Ended,
    Pauses,
    how_ended,
)

HOST, OTHER = "logx.optimizely.com", "eu.logx.optimizely.com"


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pauses(clock):
    return Pauses(after=3, longest_s=300.0, clock=clock, rand=lambda: 1.0)


def fail(pauses, host=HOST, times=1, retry_after_s=None):
    """Admit and fail events one by one; the last change."""
    change = None
    for n in range(times):
        assert pauses.admit(host, f"f-{n}")
        change = pauses.ended(host, f"f-{n}", Ended.FAILED, "http_503", retry_after_s)
    return change


def test_so_many_failures_in_a_row_pause(pauses):
    """Exactly so many: then there are no posts to it, and with no other host no receiving."""
    assert fail(pauses, times=2) is None
    assert fail(pauses) == Change(HOST, True, "http_503")
    assert not pauses.admit(HOST, "next")
    assert not pauses.any_flows()


def test_an_answer_in_between_starts_the_row_again(pauses):
    """Single failures, however many in a day, never add up to a pause."""
    fail(pauses, times=2)
    pauses.admit(HOST, "good")
    pauses.ended(HOST, "good", Ended.ANSWERED)
    assert fail(pauses, times=2) is None


def test_what_was_never_posted_does_not_count(pauses):
    """An event that was refused before its POST says nothing about the host."""
    for n in range(9):
        pauses.admit(HOST, f"n-{n}")
        assert pauses.ended(HOST, f"n-{n}", Ended.NOT_TRIED) is None
    assert pauses.any_flows()


def test_zero_switches_it_off(clock):
    """Then a host is posted to however often it fails, and whatever ``Retry-After`` says."""
    pauses = Pauses(after=0, longest_s=300.0, clock=clock)
    assert fail(pauses, times=99, retry_after_s=20.0) is None


def test_one_probe_at_a_time_with_growing_waits(pauses, clock):
    """1 s, then twice as long each time, up to 15 s, from the start of one to the next."""
    fail(pauses, times=3)
    waits, last = [], clock.now
    for n in range(7):
        while not pauses.admit(HOST, f"p-{n}"):
            clock.now += 0.5
        assert not pauses.admit(HOST, "second")
        pauses.ended(HOST, f"p-{n}", Ended.FAILED, "timeout")
        waits.append(clock.now - last)
        last = clock.now
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_retry_after_pauses_at_once_and_is_waited_for(pauses, clock):
    """A host that names a time is not asked before it, and is asked soon after it."""
    change = fail(pauses, retry_after_s=20.0)
    assert change == Change(HOST, True, "http_503")
    clock.now += 19.9
    assert not pauses.admit(HOST, "early")
    clock.now += 2.2
    assert pauses.admit(HOST, "in time")


def test_retry_after_is_bounded_by_the_longest_backoff(pauses, clock):
    """No header, wrong or hostile, stops deliveries for longer than the settings allow."""
    fail(pauses, retry_after_s=86_400.0)
    clock.now += 300.0
    assert pauses.admit(HOST, "probe")


def test_retry_after_never_hastens_a_probe(pauses, clock):
    """A host that says "at once" has failed all the same."""
    fail(pauses, retry_after_s=0.2)
    clock.now += 0.9
    assert not pauses.admit(HOST, "early")
    clock.now += 0.1
    assert pauses.admit(HOST, "probe")


def test_retry_after_of_a_probe_is_waited_for(pauses, clock):
    """As that of the failure which began the pause, and the reason is the last failure's."""
    fail(pauses, times=3)
    clock.now += 1.0
    assert pauses.admit(HOST, "probe")
    assert pauses.ended(HOST, "probe", Ended.FAILED, "http_429", 60.0) is None
    assert pauses.troubled() == {HOST: "http_429"}
    clock.now += 59.9
    assert not pauses.admit(HOST, "early")
    clock.now += 6.1
    assert pauses.admit(HOST, "in time")


def test_workers_probes_are_spread_in_time(clock):
    """Up to a fifth earlier, so that those that paused together do not go on asking together."""
    pauses = Pauses(after=3, longest_s=300.0, clock=clock, rand=lambda: 0.0)
    fail(pauses, times=3)
    clock.now += 1.0
    assert pauses.admit(HOST, "first")
    pauses.ended(HOST, "first", Ended.FAILED, "http_503")
    clock.now += 1.59
    assert not pauses.admit(HOST, "early")
    clock.now += 0.02
    assert pauses.admit(HOST, "second")


def test_an_answered_probe_resumes_with_a_ramp(pauses, clock):
    """Two may follow the one; each round of answers lets twice as many through."""
    fail(pauses, times=3)
    clock.now += 1.0
    assert pauses.admit(HOST, "probe")
    assert pauses.ended(HOST, "probe", Ended.ANSWERED) == Change(HOST, False, "http_503")
    rounds = []
    while pauses.troubled() and len(rounds) < 9:
        admitted = [f"r-{len(rounds)}-{n}" for n in range(pauses.room(HOST))]
        assert all(pauses.admit(HOST, one) for one in admitted)
        assert not pauses.admit(HOST, "one too many")
        for one in admitted:
            assert pauses.ended(HOST, one, Ended.ANSWERED) is None
        rounds.append(len(admitted))
    assert rounds == [2, 4, 8, 16]
    assert pauses.any_flows()


def test_a_failure_on_the_way_back_pauses_again(pauses, clock):
    """One is enough then: a host that has just been down gets no new row of failures."""
    fail(pauses, times=3)
    clock.now += 1.0
    pauses.admit(HOST, "probe")
    pauses.ended(HOST, "probe", Ended.ANSWERED)
    assert fail(pauses) == Change(HOST, True, "http_503")
    assert not pauses.admit(HOST, "next")


def test_with_little_to_post_the_way_back_ends_by_time(pauses, clock):
    """Ten seconds without a failure do as well as a ramp that nothing fills."""
    fail(pauses, times=3)
    clock.now += 1.0
    pauses.admit(HOST, "probe")
    pauses.ended(HOST, "probe", Ended.ANSWERED)
    clock.now += 10.0
    assert pauses.room(HOST) == 0
    assert not pauses.troubled()
    assert fail(pauses, times=2) is None


def test_a_quiet_way_back_begins_the_next_pause_like_the_first(pauses, clock):
    """A host that was well for a while is one that fails for the first time."""
    fail(pauses, times=3)
    for n in range(5):
        clock.now += LAST_PROBE_S
        assert pauses.admit(HOST, f"p-{n}")
        pauses.ended(HOST, f"p-{n}", Ended.ANSWERED if n == 4 else Ended.FAILED, "http_503")
    clock.now += 10.0
    assert pauses.room(HOST) == 0

    fail(pauses, times=3)

    clock.now += 1.0
    assert pauses.admit(HOST, "probe")


def test_events_that_hang_do_not_hold_up_the_next_probe(pauses, clock):
    """One of three fails on the way back; the two that have not ended say nothing for a while."""
    fail(pauses, times=3)
    clock.now += 1.0
    for n in range(2):
        assert pauses.admit(HOST, f"good-{n}")
        pauses.ended(HOST, f"good-{n}", Ended.ANSWERED)
    assert all(pauses.admit(HOST, f"hangs-{n}") for n in range(2))

    assert fail(pauses) == Change(HOST, True, "http_503")

    clock.now += 2.0
    assert pauses.admit(HOST, "probe")


def test_a_host_that_comes_and_goes_is_asked_less_often(pauses, clock):
    """Each probe is answered and what follows fails: waits grow, up to half of the longest."""
    fail(pauses, times=2)
    waits = []
    for n in range(5):
        assert fail(pauses) == Change(HOST, True, "http_503")
        paused_at = clock.now
        while not pauses.admit(HOST, f"p-{n}"):
            clock.now += 0.5
        waits.append(clock.now - paused_at)
        assert pauses.ended(HOST, f"p-{n}", Ended.ANSWERED) == Change(HOST, False, "http_503")
    assert waits == [1.0, 2.0, 4.0, 7.5, 7.5]


def test_answers_on_the_way_back_make_up_for_past_failures(pauses, clock):
    """After some of them the next pause begins as the first one did, and never with less."""
    fail(pauses, times=3)
    for n in range(5):
        clock.now += LAST_PROBE_S
        assert pauses.admit(HOST, f"p-{n}")
        pauses.ended(HOST, f"p-{n}", Ended.FAILED, "http_503")
    clock.now += LAST_PROBE_S
    for n in range(10):
        assert pauses.admit(HOST, f"a-{n}")
        pauses.ended(HOST, f"a-{n}", Ended.ANSWERED)

    fail(pauses)

    clock.now += 0.9
    assert not pauses.admit(HOST, "early")
    clock.now += 0.1
    assert pauses.admit(HOST, "probe")


def test_an_answer_to_what_was_posted_before_the_pause_changes_nothing(pauses):
    """A late success tells how the host was, not how it is."""
    pauses.admit(HOST, "early")
    fail(pauses, times=3)
    assert pauses.ended(HOST, "early", Ended.ANSWERED) is None
    assert pauses.paused()


def test_what_waits_in_the_pool_is_stopped(pauses, clock):
    """Admitted while all was well, not posted yet: it has to wait, and the probe has not."""
    pauses.admit(HOST, "waiting")
    assert not pauses.stops(HOST, "waiting")
    fail(pauses, times=3)
    assert pauses.stops(HOST, "waiting")
    clock.now += 1.0
    pauses.admit(HOST, "probe")
    assert not pauses.stops(HOST, "probe")


def test_a_probe_that_never_ends_is_given_up(pauses, clock):
    """Its worker process was lost: two minutes later there is another."""
    fail(pauses, times=3)
    clock.now += 1.0
    assert pauses.admit(HOST, "lost")
    clock.now += 119.0
    assert not pauses.admit(HOST, "next")
    clock.now += 2.0
    assert pauses.admit(HOST, "next")


def test_a_lost_connection_frees_the_probe(pauses, clock):
    """Nobody will hear how it ended, and the host must not stay paused for that."""
    fail(pauses, times=3)
    clock.now += 1.0
    pauses.admit(HOST, "lost")
    pauses.forget_permits()
    clock.now += 2.0
    assert pauses.admit(HOST, "next")


def test_a_probe_that_was_no_post_is_repeated_at_once(pauses, clock):
    """Nothing was learnt about the host, so its next event need not wait for a probe's time."""
    fail(pauses, times=3)
    clock.now += 1.0
    pauses.admit(HOST, "no event")
    pauses.ended(HOST, "no event", Ended.NOT_TRIED)
    assert pauses.admit(HOST, "next")


def test_other_hosts_go_on(pauses, clock):
    """One region's outage leaves the other's events flowing, as long as there are any."""
    pauses.admit(OTHER, "e")
    fail(pauses, times=3)
    assert pauses.any_flows()
    assert pauses.admit(OTHER, "f")
    clock.now += 3601.0
    assert not pauses.any_flows()  # not seen for an hour: not a reason to go on receiving


def test_a_host_counts_from_its_last_event_not_from_its_first(pauses, clock):
    """A worker that has had both regions' events for a day goes on receiving for the other one."""
    for n in range(3):
        assert pauses.admit(OTHER, f"e-{n}")
        clock.now += 3000.0

    fail(pauses, times=3)

    assert pauses.any_flows()


def test_hearsay_pauses_an_unknown_host_with_a_probe_due(pauses):
    """What a parked message tells is believed once, and found out about at once."""
    assert pauses.suspect(HOST, "parked") == Change(HOST, True, "parked")
    assert pauses.suspect(HOST, "parked") is None
    assert pauses.admit(HOST, "probe")


def flood(pauses, count, prefix="flood"):
    for n in range(count):
        assert pauses.admit(f"{prefix}-{n}", "e")


def test_a_flood_of_names_neither_forgets_nor_resumes_a_paused_host(pauses, clock):
    """Whoever writes into the queue may name as many hosts as there are."""
    fail(pauses, times=3)

    flood(pauses, 3 * MOST_HOSTS)

    assert pauses.paused() == {HOST}
    assert pauses.troubled() == {HOST: "http_503"}
    assert not pauses.admit(HOST, "early")
    clock.now += 1.0
    assert pauses.admit(HOST, "probe")
    assert not pauses.admit(HOST, "second")


def test_a_flood_of_names_leaves_the_way_back_as_it_was(pauses, clock):
    """A host that is resuming is in trouble too: one more failure is to pause it."""
    fail(pauses, times=3)
    clock.now += 1.0
    pauses.admit(HOST, "probe")
    pauses.ended(HOST, "probe", Ended.ANSWERED)
    clock.now += 1.0  # all of the flood were seen later

    flood(pauses, 2 * MOST_HOSTS)

    assert pauses.room(HOST) == 2
    assert fail(pauses) == Change(HOST, True, "http_503")


def test_a_flood_of_names_takes_no_more_than_its_bound(pauses):
    """Memory of what is named once would grow for as long as the worker runs."""
    most = 0
    for n in range(3 * MOST_HOSTS):
        pauses.admit(f"flood-{n}", "e")
        most = max(most, len(pauses._hosts))

    assert most == MOST_HOSTS


def test_those_that_were_seen_last_are_remembered(pauses, clock):
    """A host that has events all the time keeps its row of failures through a flood."""
    fail(pauses, times=2)
    for n in range(2 * MOST_HOSTS):
        clock.now += 0.01
        assert pauses.admit(f"flood-{n}", "e")
        if n % 100 == 0:
            assert pauses.admit(HOST, f"e-{n}")

    assert fail(pauses) == Change(HOST, True, "http_503")


def test_a_flood_of_names_costs_a_sort_now_and_then(pauses, monkeypatch):
    """One for each half of the bound, not one for each event."""
    sorts = []
    monkeypatch.setattr(
        "optly_celery.worker.pause.policy.sorted",
        lambda found: sorts.append(1) or sorted(found),
        raising=False,
    )

    flood(pauses, 5 * MOST_HOSTS)

    assert len(sorts) == 8  # four times the bound beyond the first, in halves


def test_a_full_house_of_troubled_hosts_admits_unknown_ones_unremembered(clock):
    """None of them is forgotten, and an event for another host need not wait for them."""
    pauses = Pauses(after=1, longest_s=300.0, clock=clock, rand=lambda: 1.0)
    for n in range(MOST_HOSTS):
        fail(pauses, f"down-{n}")
    before = pauses.paused()
    assert len(before) == MOST_HOSTS

    for n in range(9):
        assert pauses.admit("new", f"e-{n}")
        assert pauses.ended("new", f"e-{n}", Ended.FAILED, "http_503", 20.0) is None
    assert pauses.suspect("new", "parked") is None

    assert pauses.paused() == before
    assert not pauses.stops("new", "e")
    assert pauses.room("new") == 0


def test_a_full_house_with_one_that_is_well_makes_room_there(clock):
    """It is the only one that may be forgotten."""
    pauses = Pauses(after=1, longest_s=300.0, clock=clock, rand=lambda: 1.0)
    assert pauses.admit("well", "e")
    for n in range(MOST_HOSTS - 1):
        fail(pauses, f"down-{n}")

    assert fail(pauses, "new") == Change("new", True, "http_503")

    assert len(pauses.paused()) == MOST_HOSTS
    assert "well" not in pauses._hosts


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (TransientDeliveryError("", reason="http_503", status=503), Ended.FAILED),
        (TransientDeliveryError("", reason="timeout"), Ended.FAILED),
        (TransientDeliveryError("", reason="dead_letter_store"), Ended.NOT_TRIED),
        (PermanentDeliveryError("", reason="http_400", status=400), Ended.ANSWERED),
        (PermanentDeliveryError("", reason="http_503", status=503), Ended.FAILED),
        (PermanentDeliveryError("", reason="host_not_allowed"), Ended.NOT_TRIED),
        (ValueError(), Ended.NOT_TRIED),
    ],
)
def test_what_an_error_says_about_the_host(error, how):
    """An answer, or its absence, counts; troubles of our own are not the host's."""
    assert how_ended(error) is how


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(Ended), st.booleans())))
def test_a_paused_host_is_probed_at_most_once_a_second_and_at_least_every_fifteen(steps):
    """Whatever comes, posts to a paused host are apart, and a probe is never far."""
    clock = Clock()
    pauses = Pauses(after=2, longest_s=300.0, clock=clock, rand=lambda: 0.0)
    last_probe = None
    for n, (pass_s, how, finish) in enumerate(steps):
        clock.now += pass_s
        paused = bool(pauses.paused())
        under_way = paused and pauses.room(HOST) == 0
        admitted = pauses.admit(HOST, str(n))
        if paused and admitted:
            if last_probe is not None and last_probe[1] is Ended.FAILED:
                assert clock.now - last_probe[0] >= 0.8
            last_probe = (clock.now, how)
        elif not paused:
            last_probe = None
        assert not (under_way and admitted)
        if admitted and (finish or not paused):
            pauses.ended(HOST, str(n), how, "http_503")
        elif admitted:
            last_probe = None
            pauses.forget_permits()
    if pauses.paused():
        clock.now += LAST_PROBE_S
        assert pauses.admit(HOST, "last")
