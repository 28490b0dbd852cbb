"""Any sequence of answers, and of the store's refusals: each event is delivered, kept or waits."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from optly_celery.deliver.delivery import Attempt, deliver
from optly_celery.deliver.retry import RetryPolicy
from optly_celery.errors import (
    DeadLetterError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from optly_celery.event.event import Event

from ...support import US_URL, params_of, visitor_of

MOST_ATTEMPTS = 6
MAX_AGE_S = 1000.0

answers = st.sampled_from([204, 204, 204, 400, 413, 422, 401, 503, 429, None])


class Delivery(RuleBasedStateMachine):
    """One message: attempts, redeliveries after a death, a store that fails, time that passes."""

    def __init__(self):
        super().__init__()
        self.delivered = Counter()
        self.kept = Counter()
        self.posts = 0
        self.deaths = 0
        self.store_fails = 0
        self.attempt = 1
        self.age_s = 0.0
        self.rest = None
        self.uuids = set()
        self.script = []
        self.policy = RetryPolicy(
            max_attempts=MOST_ATTEMPTS, base_backoff_s=1.0, max_age_s=MAX_AGE_S
        )

    @initialize(count=st.integers(1, 12))
    def enqueue(self, count):
        self.uuids = {f"u-{n}" for n in range(count)}
        visitors = [visitor_of(f"v-{n}", f"u-{n}") for n in range(count)]
        self.rest = Event.of(US_URL, params_of() | {"visitors": visitors})

    @rule(seconds=st.floats(0, 400))
    def time_passes(self, seconds):
        self.age_s += seconds

    @precondition(lambda self: self.rest is not None)
    @rule(script=st.lists(answers, max_size=30), store_fails=st.integers(0, 3))
    def try_it(self, script, store_fails):
        """One attempt; its outcome is the next message, or the end."""
        outcome = self._attempt(script, store_fails)
        self.rest = outcome.rest
        self.attempt += 1
        if outcome.rest is None:
            assert set(self.delivered) | set(self.kept) == self.uuids
        else:
            assert outcome.error is not None
            assert outcome.retry_in_s > 0

    @precondition(lambda self: self.rest is not None)
    @rule(script=st.lists(answers, max_size=30))
    def die_after_it(self, script):
        """The worker is killed before the ack: the same message comes again, not a new attempt."""
        self._attempt(script, 0)
        self.deaths += 1

    def _attempt(self, script, store_fails):
        self.script, self.store_fails = script, store_fails
        before = self.posts
        waiting = len(self.rest.visitors)
        attempt = Attempt(task_id="t", number=self.attempt, first_at=0.0, age_s=self.age_s)
        outcome = deliver(self.rest, attempt, via=self, policy=self.policy, dead=self)
        assert self.posts - before <= 2 * waiting * math.log2(max(waiting, 2)) + 1
        return outcome

    def post(self, event):
        self.posts += 1
        status = self.script.pop(0) if self.script else 204
        if status is None or status in (503, 429):
            raise TransientDeliveryError("t", reason="t", status=status)
        if status != 204:
            raise PermanentDeliveryError("p", reason=f"http_{status}", status=status)
        self.delivered.update(_uuids(event))

    def keep(self, kept):
        if self.store_fails:
            self.store_fails -= 1
            raise DeadLetterError("away")
        self.kept.update(_uuids(kept.event))
        return "id"

    @invariant()
    def nothing_is_lost(self):
        waiting = set(_uuids(self.rest)) if self.rest is not None else set()
        assert set(self.delivered) | set(self.kept) | waiting == self.uuids

    @invariant()
    def nothing_comes_twice_but_by_a_death(self):
        ends = self.delivered + self.kept
        assert not ends or max(ends.values()) <= 1 + self.deaths

    def teardown(self):
        """Left alone with an endpoint that never recovers, it ends all the same."""
        self.script = []
        for _ in range(MOST_ATTEMPTS + 1):
            if self.rest is None:
                break
            self.rest = self._attempt([503] * 100, 0).rest
            self.attempt += 1
        assert self.rest is None
        assert set(self.delivered) | set(self.kept) == self.uuids


def _uuids(event):
    return [v["snapshots"][0]["events"][0]["uuid"] for v in event.visitors]


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=100, stateful_step_count=12, deadline=None)
