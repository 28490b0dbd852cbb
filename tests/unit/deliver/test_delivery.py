"""What follows from each way an attempt can end."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optly_celery.dead_letters.letter import Kept
from optly_celery.deliver.delivery import Attempt, Outcome, deliver
from optly_celery.deliver.retry import RetryPolicy, Verdict, verdict
from optly_celery.errors import DeadLetterError, PermanentDeliveryError, TransientDeliveryError
from optly_celery.event.batch import join
from optly_celery.event.event import Event
from optly_celery.worker.pause.policy import Ended, how_ended

from ...support import US_URL, params_of

FIRST_AT = 1_700_000_000.0
POLICY = RetryPolicy(max_attempts=3, base_backoff_s=2.0, max_age_s=1_000.0, rand=lambda: 1.0)


class ScriptedTransport:
    """Answers each post with the next status of a list, and with 204 when that is at its end.

    ``guilty`` are visitors for whose sake a post is refused, as by a strict endpoint.
    """

    def __init__(self, *statuses, guilty=(), refusal=400, retry_after_s=None):
        self.posted: list[Event] = []
        self.delivered: list[str] = []
        self._statuses = list(statuses)
        self._guilty, self._refusal = set(guilty), refusal
        self._retry_after_s = retry_after_s

    def post(self, event):
        self.posted.append(event)
        status = self._statuses.pop(0) if self._statuses else 204
        if self._guilty & set(_names(event)):
            status = self._refusal
        reason, told = f"http_{status}", self._retry_after_s
        if verdict(status) is Verdict.TRANSIENT:
            raise TransientDeliveryError(reason, reason=reason, status=status, retry_after_s=told)
        if verdict(status) is Verdict.PERMANENT:
            raise PermanentDeliveryError(reason, reason=reason, status=status)
        self.delivered += _names(event)


class MemoryDeadLetters:
    """Keeps letters in a list; ``fails`` says of each call in turn whether it fails instead."""

    def __init__(self, *fails):
        self.letters: list[Kept] = []
        self._fails = list(fails)

    def keep(self, kept):
        if self._fails and self._fails.pop(0):
            raise DeadLetterError("Redis did not take it")
        self.letters.append(kept)
        return str(len(self.letters))

    @property
    def kept(self):
        return [name for kept in self.letters for name in _names(kept.event)]

    @property
    def reasons(self):
        return [kept.reason for kept in self.letters]


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_a_delivered_event_needs_nothing_more(status):
    """No rest, nothing kept, one post."""
    via, dead = ScriptedTransport(status), MemoryDeadLetters()

    assert _deliver(_event(3), via, dead) == Outcome()
    assert (len(via.posted), dead.letters) == (1, [])


def test_server_errors_back_off_until_attempts_run_out():
    """Two waits, doubling; the third failure is kept as a dead letter with its last error."""
    via, dead = ScriptedTransport(503, 503, 503), MemoryDeadLetters()
    event = _event(2)

    outcomes = [_deliver(event, via, dead, number=n) for n in (1, 2, 3)]

    assert [(o.rest, o.retry_in_s) for o in outcomes] == [(event, 2.0), (event, 4.0), (None, 0.0)]
    assert dead.letters == [
        Kept(
            event=event, task_id="task-1", reason="attempts_exhausted", error="http_503",
            status=503, attempts=3, first_at=FIRST_AT,
        )
    ]  # fmt: skip
    assert [e.reason for e in outcomes[2].refused] == ["http_503"]


def test_an_event_past_its_age_is_kept_when_it_fails():
    """Not before: an old event that is delivered is delivered."""
    via, dead = ScriptedTransport(204, 503), MemoryDeadLetters()

    assert _deliver(_event(1), via, dead, age_s=1_001.0) == Outcome()
    assert _deliver(_event(1), via, dead, age_s=1_001.0).rest is None
    assert dead.reasons == ["too_old"]


def test_retry_after_raises_the_wait():
    """The endpoint knows better than the policy when it will be back."""
    via = ScriptedTransport(429, retry_after_s=100.0)

    outcome = _deliver(_event(1), via, MemoryDeadLetters())

    assert outcome.retry_in_s == pytest.approx(110.0)
    assert outcome.error.reason == "http_429"


@pytest.mark.parametrize("status", [301, 302, 304, 401, 403, 404, 405, 410, 451])
def test_a_refused_event_is_kept_on_the_first_attempt(status):
    """Whole, however many visitors it has, and never retried or taken apart."""
    via, dead = ScriptedTransport(status), MemoryDeadLetters()
    event = _event(5)

    outcome = _deliver(event, via, dead)

    assert (outcome.rest, len(via.posted)) == (None, 1)
    assert dead.letters[0].event is event
    assert dead.letters[0].status == status
    assert [e.reason for e in outcome.refused] == dead.reasons == [f"http_{status}"]


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("visitors", [0, 1])
def test_what_cannot_be_taken_apart_is_kept_as_it_is(status, visitors):
    """One visitor that the endpoint does not want, or params without any."""
    via, dead = ScriptedTransport(status), MemoryDeadLetters()
    event = _event(visitors)

    _deliver(event, via, dead)

    assert [kept.event for kept in dead.letters] == [event]
    assert len(via.posted) == 1


@pytest.mark.parametrize("refusal", [400, 413, 422])
def test_one_bad_event_hurts_nobody_else(refusal):
    """Of 100 visitors 3 are guilty: 97 are delivered, 3 kept, each alone, in few posts."""
    guilty = ["v17", "v18", "v99"]
    via, dead = ScriptedTransport(guilty=guilty, refusal=refusal), MemoryDeadLetters()

    outcome = _deliver(_event(100), via, dead)

    assert via.delivered == [f"v{i}" for i in range(100) if f"v{i}" not in guilty]
    assert [_names(kept.event) for kept in dead.letters] == [[name] for name in guilty]
    assert dead.reasons == [f"http_{refusal}"] * 3
    assert len(outcome.refused) == 3
    assert outcome.rest is None
    assert len(via.posted) <= 2 * 3 * math.log2(100) + 1


def test_an_event_too_large_is_halved_until_it_fits():
    """413 says nothing about anybody's guilt: all are delivered."""
    via, dead = ScriptedTransport(413, 204, 413, 204, 204), MemoryDeadLetters()

    assert _deliver(_event(8), via, dead) == Outcome()
    assert [len(e.visitors) for e in via.posted] == [8, 4, 4, 2, 2]
    assert via.delivered == _names(_event(8))


def test_parts_keep_the_whole_context():
    """All of params but ``visitors``, in its order, as well as url, verb and headers."""
    event = _event(2)
    via = ScriptedTransport(400)

    _deliver(event, via, MemoryDeadLetters())

    for part in via.posted:
        assert {**part.params, "visitors": 0} == {**event.params, "visitors": 0}
        assert list(part.params) == list(event.params)
        assert (part.url, part.verb, part.headers) == (event.url, event.verb, event.headers)


def test_an_outage_amid_a_split_leaves_exactly_what_is_not_settled():
    """Delivered visitors are not posted again, kept ones are not kept again; order stays."""
    via = ScriptedTransport(400, 400, 204, 400, 503)
    dead = MemoryDeadLetters()

    outcome = _deliver(_event(8), via, dead, number=2)

    # 8 refused; 0-3 refused; 0-1 delivered; 2-3 refused; 2 not answered for.
    assert via.delivered == ["v0", "v1"]
    assert dead.letters == []
    assert _names(outcome.rest) == ["v2", "v3", "v4", "v5", "v6", "v7"]
    assert outcome.rest.params == {**_event(8).params, "visitors": outcome.rest.visitors}
    assert (outcome.retry_in_s, outcome.error.status) == (4.0, 503)


def test_the_last_attempt_keeps_the_rest_of_a_split_as_one_letter():
    """What was delivered before the failure is not in it."""
    via, dead = ScriptedTransport(400, 204, 503), MemoryDeadLetters()

    outcome = _deliver(_event(4), via, dead, number=3)

    assert outcome.rest is None
    assert (dead.kept, dead.reasons) == (["v2", "v3"], ["attempts_exhausted"])
    assert via.delivered == ["v0", "v1"]


@pytest.mark.parametrize("number", [1, 3, 4])
def test_what_the_dead_letter_store_does_not_take_stays_in_the_queue(number):
    """However many attempts there have been: not delivered, not kept, so not acked."""
    via, dead = ScriptedTransport(404), MemoryDeadLetters(True)

    outcome = _deliver(_event(3), via, dead, number=number)

    assert outcome.rest == _event(3)
    assert outcome.refused == ()
    assert outcome.error.reason == "dead_letter_store"
    assert isinstance(outcome.error, TransientDeliveryError)
    assert outcome.retry_in_s > 0


def test_a_store_that_fails_when_attempts_run_out_costs_nothing():
    """The event waits for the store as it has waited for the endpoint."""
    outcome = _deliver(_event(2), ScriptedTransport(503), MemoryDeadLetters(True), number=3)

    assert _names(outcome.rest) == ["v0", "v1"]


def test_a_store_that_fails_amid_a_split_leaves_what_is_not_settled():
    """The letter that was kept stays kept; the one that was not is first in the rest."""
    via = ScriptedTransport(guilty=["v1", "v3"])
    dead = MemoryDeadLetters(False, True)

    outcome = _deliver(_event(6), via, dead)

    assert via.delivered == ["v0", "v2"]
    assert dead.kept == ["v1"]
    assert _names(outcome.rest) == ["v3", "v4", "v5"]
    assert len(outcome.refused) == 1


@pytest.mark.parametrize(
    ("kind", "number", "fails"),
    [
        (TransientDeliveryError, 1, False),
        (TransientDeliveryError, 3, False),
        (PermanentDeliveryError, 1, False),
        (PermanentDeliveryError, 1, True),
    ],
    ids=["later", "kept at last", "kept at once", "not kept"],
)
def test_an_outcome_holds_no_frames(kind, number, fails):
    """It is there for as long as an outage, and a frame would keep all its callers' data."""
    seen = []

    class Local:
        """What stands in a frame."""

    class Failing:
        def post(self, _event):
            held = Local()
            seen.append(weakref.ref(held))
            try:
                {}["connection"]
            except KeyError as exc:
                raise kind("", reason="http_404", status=404) from exc

    outcome = _deliver(_event(2), Failing(), MemoryDeadLetters(fails), number=number)

    (error,) = [outcome.error] if outcome.error is not None else outcome.refused
    assert [local() for local in seen] == [None]
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__


def test_what_is_interrupted_is_the_rest_and_has_failed_at_nothing():
    """It is published again at once, spends no attempt, and splitting will go on where it was."""
    via = ScriptedTransport(guilty=["v5"])

    outcome = _deliver(_event(8), via, MemoryDeadLetters(), interrupted=_after(3))

    # 8 refused; 0-3 delivered; 4-7 refused.
    assert via.delivered == ["v0", "v1", "v2", "v3"]
    assert _names(outcome.rest) == ["v4", "v5", "v6", "v7"]
    assert (outcome.retry_in_s, outcome.parts, outcome.refused) == (0.0, (2, 2), ())
    assert (outcome.error.reason, outcome.error.spends) == ("why", False)
    assert (outcome.error.status, how_ended(outcome.error)) == (None, Ended.NOT_TRIED)


def test_each_go_gets_further_however_little_time_it_has():
    """A batch whose refusals take too long for one task is settled by several, POST for POST.

    Each makes at least one, and none of them spends an attempt.
    """
    guilty = ["v17", "v18", "v99"]
    whole = ScriptedTransport(guilty=guilty)
    _deliver(_event(100), whole, MemoryDeadLetters())
    via, dead = ScriptedTransport(guilty=guilty), MemoryDeadLetters()

    rest, parts, goes = _event(100), (), 0
    while rest is not None:
        outcome = _deliver(rest, via, dead, parts=parts, interrupted=_after(1))
        rest, parts, goes = outcome.rest, outcome.parts, goes + 1

    assert [_names(e) for e in via.posted] == [_names(e) for e in whole.posted]
    assert goes == len(via.posted)
    assert via.delivered == whole.delivered
    assert [_names(kept.event) for kept in dead.letters] == [[name] for name in guilty]


def test_nobody_is_asked_where_one_post_settles_it():
    """An event that is taken at once is not put off because its worker ends."""
    for via in (ScriptedTransport(204), ScriptedTransport(404)):
        outcome = _deliver(_event(3), via, MemoryDeadLetters(), interrupted=lambda: "shutdown")

        assert outcome.rest is None


@pytest.mark.parametrize("number", [3, 4, 300])
def test_an_interruption_of_the_last_attempt_is_no_dead_letter(number):
    """Nothing has failed, so there is nothing to give up."""
    dead = MemoryDeadLetters()

    outcome = _deliver(_event(4), ScriptedTransport(400), dead, number=number,
                       age_s=1e9, interrupted=_after(1))  # fmt: skip

    assert (_names(outcome.rest), dead.letters) == (["v0", "v1", "v2", "v3"], [])


def test_an_outage_amid_a_split_remembers_the_parts():
    """The next attempt posts none again of which it is known that it is refused as a whole."""
    first = ScriptedTransport(400, 400, 204, 400, 503)
    outcome = _deliver(_event(8), first, MemoryDeadLetters())
    assert outcome.parts == (1, 1, 4)
    via = ScriptedTransport()

    _deliver(outcome.rest, via, MemoryDeadLetters(), number=2, parts=outcome.parts)

    assert [len(e.visitors) for e in via.posted] == [1, 1, 4]


@pytest.mark.parametrize(
    "parts",
    [
        (), (4,), (2, 3), (1, 1), (0, 4), (-1, 5), (2, 2, 0), (2.0, 2), (True, 3), ("2", 2),
        (None, 4), ([2], 2), ({}, 4), (10**30, 4), (float("nan"), 4),
    ],
)  # fmt: skip
def test_parts_that_are_not_this_event_s_are_none(parts):
    """They come from a message's header, in which anybody may write anything."""
    via = ScriptedTransport()

    _deliver(_event(4), via, MemoryDeadLetters(), parts=parts)

    assert [len(e.visitors) for e in via.posted] == [4]


def test_the_words_of_a_refusal_go_into_the_letter_and_nowhere_else():
    """They may quote the event: what Celery gets to see does not hold them."""
    error = PermanentDeliveryError("", reason="http_400", status=400, answer="ann is bad")
    via, dead = SimpleNamespace(post=Mock(side_effect=error)), MemoryDeadLetters()

    outcome = _deliver(_event(1), via, dead)

    assert dead.letters[0].answer == "ann is bad"
    assert "ann" not in repr(dead.letters) + repr([vars(e) for e in outcome.refused])


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 12),
    statuses=st.lists(st.sampled_from([204, 400, 413, 404, 429, 503]), max_size=24),
    fails=st.lists(st.booleans(), max_size=6),
    number=st.integers(1, 4),
    posts=st.integers(1, 20),
)
def test_each_visitor_is_delivered_or_kept_or_still_to_be_sent(
    count, statuses, fails, number, posts
):
    """Once and in one of the three places, whatever the endpoint and the store answer."""
    via, dead = ScriptedTransport(*statuses), MemoryDeadLetters(*fails)

    outcome = _deliver(_event(count), via, dead, number=number, interrupted=_after(posts))

    assert len(via.posted) <= posts
    rest = _names(outcome.rest) if outcome.rest is not None else []
    assert sorted(via.delivered + dead.kept + rest) == sorted(_names(_event(count)))
    assert rest == [f"v{i}" for i in range(count)][count - len(rest) :]  # in order, and the last
    assert (outcome.rest is None) is (outcome.error is None)
    assert len(outcome.refused) == len(dead.letters)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 12),
    statuses=st.lists(st.sampled_from([204, 400, 503, 429]), max_size=60),
    fails=st.lists(st.booleans(), max_size=6),
)
def test_attempt_by_attempt_everything_is_settled_once(count, statuses, fails):
    """The rest of each attempt is all of the next one; in the end no visitor is left."""
    via, dead = ScriptedTransport(*statuses), MemoryDeadLetters(*fails)
    rest, number = _event(count), 0

    while rest is not None:
        number += 1
        rest = _deliver(rest, via, dead, number=number).rest

    assert sorted(via.delivered + dead.kept) == sorted(_names(_event(count)))
    assert number <= POLICY.max_attempts + len(fails)


def _deliver(event, via, dead, *, number=1, age_s=0.0, parts=(), interrupted=None):
    attempt = Attempt(task_id="task-1", number=number, first_at=FIRST_AT, age_s=age_s, parts=parts)
    return deliver(event, attempt, via=via, policy=POLICY, dead=dead, interrupted=interrupted)


def _after(posts):
    """Interrupt when there have been so many POSTs."""
    asked = iter([None] * (posts - 1))
    return lambda: next(asked, "why")


def _event(visitors):
    parts = [Event.of(US_URL, params_of(f"v{i}", f"u{i}"), "POST", {}) for i in range(visitors)]
    return join(parts) if parts else Event.of(US_URL, {**params_of(), "visitors": []}, "POST", {})


def _names(event):
    return [visitor["visitor_id"] for visitor in event.visitors]
