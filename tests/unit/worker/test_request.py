"""What becomes of a message after each kind of end: acked, given back, or its event kept."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace

import celery
import pytest
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError
from celery.worker import state

from optly_celery.errors import PermanentDeliveryError, TransientDeliveryError
from optly_celery.names import DELIVER_TASK, ENQUEUED_AT_HEADER, RECEIVED_AT_HEADER, SWEPT_HEADER
from optly_celery.worker.loop import Loop
from optly_celery.worker.pause.policy import Ended
from optly_celery.worker.request import PAUSED, DeliverRequest, GiveBack, give_backs_in_a_line
from optly_celery.worker.suspects import MOST_DEATHS, Suspects

from ...support import US_URL
from .doubles import Channel, Consumer, Events, Letters, a_message, an_app

GIVE_BACK_S = 12.0


class Told:
    """Stands for pausing: notes what it is told of ends, and admits what it is told to."""

    def __init__(self):
        self.ends = []
        self.admitting = True

    def admits(self, _task_id, _url):
        return self.admitting

    def ended(self, task_id, url, how, error=None):
        self.ends.append((task_id, url, how, error))

    @property
    def how(self):
        return [how for _, _, how, _ in self.ends]


class Double(celery.Task):
    """A task with the deliver task's options, and parts of its own."""

    name = DELIVER_TASK
    acks_late = reject_on_worker_lost = ignore_result = True

    def run(self):
        raise AssertionError("nothing runs here")

    def run_request(self, request):
        self.run_again.append(request)


class Rig:
    """A request of a double task, with the parts of a worker around it."""

    def __init__(self):
        self.channel, self.letters, self.pausing = Channel(), Letters(), Told()
        self.consumer, self.events = Consumer(an_app()), Events()
        loop = Loop(self.consumer)
        self.parts = SimpleNamespace(
            loop=loop,
            pausing=self.pausing,
            suspects=Suspects(self.letters, loop),
            give_back_s=GIVE_BACK_S,
            has_returned=lambda task_id: task_id not in self.killed,
        )
        self.killed = set()
        self.task = self.consumer.app.register_task(Double())
        self.task.parts, self.task.run_again = self.parts, []

    def request(self, *args, **message):
        made = a_message(*args, channel=self.channel, **message)
        return DeliverRequest(
            made,
            on_ack=made.ack_log_error,
            on_reject=made.reject_log_error,
            app=self.consumer.app,
            task=self.task,
            eventer=self.events,
            connection_errors=(ConnectionError,),
            hostname="unit@here",
        )

    def fail(self, exc, request=None):
        """Have a request end in this error, as a pool reports it."""
        request = request or self.request()
        request.on_failure(raised(exc), return_ok=True)
        return request

    def wait(self):
        """Until what was to be given back is."""
        self.consumer.turn()
        waits = self.consumer.timer.waits
        self.consumer.timer.run()
        return waits


def raised(exc):
    try:
        raise exc
    except type(exc):
        return ExceptionInfo()


@pytest.fixture
def rig():
    yield Rig()
    state.reserved_requests.clear()
    state.active_requests.clear()
    state.requests.clear()
    state.revoked.clear()


REFUSED = PermanentDeliveryError("", reason="http_400", status=400)
AWAY = TransientDeliveryError("", reason="http_503", status=503)


def test_a_success_acks_and_says_that_the_host_answered(rig):
    """The event is delivered: nothing else is to come of its message."""
    rig.request().on_success((False, None, 0.1))

    assert rig.channel.settled == [("ack", "tag of t-1")]
    assert rig.pausing.ends == [("t-1", US_URL, Ended.ANSWERED, None)]
    assert rig.letters.kept == []


def test_what_was_refused_for_good_is_acked(rig):
    """The task has kept it as a dead letter before it raised that."""
    rig.fail(REFUSED)

    assert rig.channel.words == ["ack"]
    assert rig.pausing.how == [Ended.ANSWERED]
    assert rig.letters.kept == []  # once is enough


def test_a_retry_that_was_published_acks_and_says_what_the_host_did(rig):
    """The event is in the broker a second time, in its retry; the first message can go."""
    rig.fail(Retry(exc=AWAY, when=3))

    assert rig.channel.words == ["ack"]
    assert rig.pausing.ends == [("t-1", US_URL, Ended.FAILED, AWAY)]


@pytest.mark.parametrize(("countdown", "wait_s"), [(4.0, 4.0), (0.0, 0.0), (None, GIVE_BACK_S)])
def test_a_give_back_is_given_back_in_so_many_seconds(rig, countdown, wait_s):
    """Not before them, and with none of them named in a while; 0 is a time as any other."""
    rig.fail(GiveBack("the store is away", countdown))

    assert rig.channel.settled == []
    assert rig.wait() == [wait_s]
    assert rig.channel.words == ["give back"]
    assert rig.pausing.how == [Ended.NOT_TRIED]


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_error_is_the_same_with_and_without_billiard_s_wrapper(rig, wrapped):
    """Pools send it either way, and what it says is to be followed either way."""
    error = GiveBack("x", 2.0)
    info = raised(error)
    assert isinstance(info.exception, ExceptionWithTraceback)
    if not wrapped:
        info.exception = error

    rig.request().on_failure(info)

    assert rig.wait() == [2.0]


def test_a_lost_worker_gives_its_event_back_below_three_deaths(rig):
    """It may have been anything that killed it; each death is counted."""
    for n in range(1, MOST_DEATHS):
        rig.fail(WorkerLostError("signal 9"))
        assert rig.channel.words == ["give back"] * n
    assert rig.letters.strikes == {"t-1": MOST_DEATHS - 1}
    assert rig.letters.kept == []


def test_an_event_that_three_children_died_of_is_kept(rig):
    """Poison: the others in the queue are to be delivered, and this one is for a person."""
    rig.letters.strikes["t-1"] = MOST_DEATHS - 1

    rig.fail(WorkerLostError("signal 9"))

    assert rig.letters.reasons == ["killed_worker"]
    assert rig.channel.words == ["ack"]
    assert "task-failed" in rig.events.kinds


def test_a_store_away_at_the_third_death_gives_back(rig):
    """What cannot be kept is not acked."""
    request = rig.request()
    rig.letters.strikes["t-1"] = MOST_DEATHS
    rig.letters.away = True

    rig.parts.suspects.end(request, "killed_worker")

    assert rig.wait() == [GIVE_BACK_S]
    assert (rig.channel.words, rig.letters.kept) == (["give back"], [])


def test_an_unexpected_error_gives_back_and_is_kept_at_the_third(rig):
    """A fault of ours must neither cost the event nor go on for ever."""
    for n in range(1, MOST_DEATHS):
        rig.fail(KeyError("a fault"))
        assert rig.wait() == [GIVE_BACK_S]
        assert rig.channel.words == ["give back"] * n

    rig.fail(KeyError("a fault"))

    assert rig.wait() == []
    assert rig.channel.words[MOST_DEATHS - 1 :] == ["ack"]
    assert rig.letters.reasons == ["unexpected_error"]
    assert rig.pausing.how[: MOST_DEATHS - 1] == [Ended.NOT_TRIED] * (MOST_DEATHS - 1)


def test_an_unexpected_error_that_cannot_be_counted_gives_back(rig):
    """However often: no event is acked because the store of its letter is away."""
    rig.letters.away = True
    for _ in range(MOST_DEATHS + 1):
        rig.fail(KeyError("a fault"))
        rig.wait()

    assert rig.channel.words == ["give back"] * (MOST_DEATHS + 1)


def test_a_hard_time_limit_gives_back(rig):
    """It hit in the middle of a POST; Celery 5.4 would have deleted the message."""
    rig.request().on_timeout(False, 30.0)

    assert rig.channel.settled == []
    assert rig.wait() == [GIVE_BACK_S]
    assert rig.channel.words == ["give back"]
    assert rig.pausing.how == [Ended.NOT_TRIED]


def test_a_hard_time_limit_reported_twice_gives_back_once(rig):
    """A prefork pool does that; the second would reject what somebody else has by then."""
    request = rig.request()
    request.on_timeout(False, 30.0)
    request.on_timeout(False, 30.0)

    assert rig.wait() == [GIVE_BACK_S]
    assert rig.channel.words == ["give back"]
    assert rig.pausing.how == [Ended.NOT_TRIED]


def test_a_soft_time_limit_is_only_logged_here(rig):
    """The task itself sees it, and decides; its own end comes after it."""
    request = rig.request()
    request.on_timeout(True, 20.0)
    assert (rig.channel.settled, rig.wait(), rig.pausing.ends) == ([], [], [])

    request.on_success((False, None, 20.1))

    assert rig.channel.words == ["ack"]


def test_what_a_person_revoked_is_acked_and_says_nothing_of_the_host(rig):
    """Nobody has posted it: it must neither pause the host nor let it flow."""
    state.revoked.add("t-1")
    request = rig.request()

    assert request.revoked()

    assert rig.channel.words == ["ack"]
    assert rig.pausing.ends == []


def test_what_a_person_terminated_is_acked(rig):
    """``Terminated`` is a person's doing; Celery knows what to do with it."""
    rig.fail(Terminated("15"))

    assert rig.channel.words == ["ack"]
    assert rig.letters.kept == []


@pytest.mark.parametrize(
    ("exc", "word"),
    [(Ignore(), "ack"), (Reject("r", requeue=True), "give back"), (Reject("r"), "delete")],
)
def test_what_somebody_s_own_code_decides_is_left_to_celery(rig, exc, word):
    """Its `Ignore` and `Reject` mean with this task what they mean with any."""
    rig.fail(exc)

    assert (rig.channel.words, rig.letters.kept) == ([word], [])


def test_a_memory_error_leaves_the_message_unacked(rig):
    """The worker ends with it: whoever starts next has the message again."""
    with pytest.raises(MemoryError):
        rig.fail(MemoryError())

    assert rig.channel.settled == []


def test_an_end_is_told_of_only_once(rig):
    """Pools report some ends twice, and `Retry` and others ack: one end is one failure."""
    request = rig.fail(Retry(exc=AWAY, when=3))
    request.acknowledge()
    request.on_timeout(False, 3.0)

    assert rig.pausing.how == [Ended.FAILED]


def test_what_is_neither_revoked_nor_held_up_may_run(rig):
    """Celery asks this before it hands a request over: no is the answer that lets it."""
    assert not rig.request().revoked()
    assert (rig.channel.settled, rig.wait()) == ([], [])


def test_being_admitted_does_not_count_as_an_end(rig):
    """It was asked for whether it is revoked; that must not hush its real end."""
    request = rig.request()
    request.revoked()

    request.on_success((False, None, 0.1))

    assert rig.pausing.how == [Ended.ANSWERED]


def test_what_waited_while_a_pause_began_is_given_back_at_once(rig, caplog):
    """Others have room for it. There may be hundreds, so its line is no warning."""
    caplog.set_level(logging.INFO)
    rig.pausing.admitting = False

    assert rig.request().revoked()

    assert rig.wait() == [0.0]
    assert rig.channel.words == ["give back"]
    assert {r.levelno for r in caplog.records if r.name.startswith("optly")} == {logging.INFO}


def test_a_suspect_that_must_wait_comes_back_by_itself(rig):
    """One at a time: the second is handed to the pool again a moment later."""
    first = rig.request(task_id="t-1", **{SWEPT_HEADER: True})
    second = rig.request(task_id="t-2", **{SWEPT_HEADER: True})
    for one in (first, second):
        state.task_reserved(one)
    assert not first.revoked()

    assert second.revoked()

    assert rig.channel.settled == []
    rig.wait()
    assert rig.task.run_again == [second]
    first.on_success((False, None, 0.1))
    assert not second.revoked()


def test_a_suspect_that_was_delivered_is_forgiven(rig):
    """Its note would count against it if it was replayed within the day."""
    request = rig.request(**{SWEPT_HEADER: True})
    assert not request.revoked()
    assert rig.letters.strikes == {"t-1": 2}

    request.on_success((False, None, 0.1))

    assert rig.letters.strikes == {}


def test_a_suspect_that_was_given_back_is_forgiven(rig):
    """It has lived through an attempt: what keeps it from its end is no death."""
    request = rig.request(**{SWEPT_HEADER: True})
    assert not request.revoked()

    rig.fail(GiveBack("x", 1.0), request)

    assert rig.letters.strikes == {}


def test_a_suspect_is_forgiven_after_its_ack_and_not_before(rig):
    """Forgiving lets the next one run, which may be the deadly one: the ack must be on its way."""
    words_then = []
    forgive = rig.letters.forgive
    rig.letters.forgive = lambda task_id: (words_then.append(rig.channel.words), forgive(task_id))
    request = rig.request(**{SWEPT_HEADER: True})
    assert not request.revoked()

    request.on_success((False, None, 0.1))

    assert words_then == [["ack"]]


def test_giving_back_is_tried_again_until_the_broker_takes_it(rig):
    """While it does not, the message is unacked there: nothing is lost, but it waits."""
    rig.channel.refuses = 2
    rig.fail(GiveBack("x", 1.0))

    waits = [rig.wait() for _ in range(4)]

    assert waits == [[1.0], [5.0], [5.0], []]
    assert rig.channel.words == ["give back"]


def test_a_give_back_ends_the_request_for_the_worker(rig):
    """A warm shutdown waits for what is reserved, and must not wait for a countdown."""
    request = rig.request()
    state.task_reserved(request)

    rig.fail(GiveBack("x", 60.0), request)

    assert request not in state.reserved_requests
    assert rig.events.kinds == ["task-retried"]


def test_cancelling_in_a_pool_that_cannot_lets_the_post_end(rig):
    """A solo pool says so by an error, which would be raised in the middle of the POST."""

    class Solo:
        def terminate_job(self, *_):
            raise NotImplementedError

    request = rig.request()
    request.time_start = 1.0

    request.cancel(Solo())
    request.on_success((False, None, 0.1))

    assert rig.channel.words == ["ack"]


def test_cancelling_in_a_pool_that_can_is_celery_s(rig):
    """The child is killed, and the message stays unacked."""
    killed = []
    request = rig.request()
    request.time_start, request.worker_pid = 1.0, 99

    request.cancel(SimpleNamespace(terminate_job=lambda pid, _: killed.append(pid)))

    assert (killed, rig.channel.settled) == ([99], [])


def test_what_was_cancelled_is_not_acked_though_it_ends_as_a_success(rig):
    """As Celery's green pools end what they kill; monitors are not told so."""
    rig.killed.add("t-1")
    request = rig.request()
    request.time_start, request.worker_pid = 1.0, 99
    request.cancel(SimpleNamespace(terminate_job=lambda *_: None))

    request.on_success((False, None, None))

    assert rig.channel.settled == []
    assert "task-succeeded" not in rig.events.kinds


def test_a_child_that_was_killed_for_a_cancellation_acks_nothing(rig):
    """Celery takes it for a person's revocation, which acks."""
    request = rig.request()
    request.time_start, request.worker_pid = 1.0, 99
    request.cancel(SimpleNamespace(terminate_job=lambda *_: None))

    request.on_failure(SimpleNamespace(exception=Terminated(15), traceback=""))
    rig.consumer.turn()
    rig.consumer.timer.run()

    assert rig.channel.words == ["give back"]


def test_what_has_ended_before_its_cancellation_is_acked(rig):
    """A child's answer may come later: that the event was delivered stands."""
    request = rig.request()
    request.time_start, request.worker_pid = 1.0, 99
    request.cancel(SimpleNamespace(terminate_job=lambda *_: None))

    request.on_success((False, None, 0.1))

    assert rig.channel.words == ["ack"]


def test_a_success_without_a_return_is_given_back(rig):
    """Whoever killed the greenlet: it goes back to its queue."""
    rig.killed.add("t-1")
    request = rig.request()

    request.on_success((False, None, None))
    rig.consumer.turn()
    rig.consumer.timer.run()

    assert rig.channel.words == ["give back"]
    assert "task-succeeded" not in rig.events.kinds


def test_what_a_person_terminates_is_acked(rig):
    """It was revoked: that is the person's word."""
    rig.killed.add("t-1")
    request = rig.request()
    request.time_start, request.worker_pid = 1.0, 99

    request.terminate(SimpleNamespace(terminate_job=lambda *_: None))

    assert rig.channel.words == ["ack"]


def test_arguments_of_a_foreign_message_are_hidden(rig):
    """Celery logs them and shows them to monitors: they are a summary, whoever sent them."""
    request = rig.request(**{ENQUEUED_AT_HEADER: None, "argsrepr": "['secret']"})

    assert request.argsrepr.startswith("POST logx.optimizely.com, project 111001, 1 event, ")
    assert (request.kwargsrepr, request.request_dict["kwargsrepr"]) == ("{}", "{}")
    assert request.request_dict["argsrepr"] == request.argsrepr
    assert "secret" not in repr(request) + str(request.info(safe=True))


def test_arguments_that_are_no_event_are_hidden_too(rig):
    """Nothing is known of them, so nothing is shown."""
    request = rig.request("secret", "secret", **{ENQUEUED_AT_HEADER: None, "argsrepr": None})

    assert request.argsrepr == "no event"


@pytest.mark.parametrize("theirs", [None, 1e18, "soon", [1]])
def test_a_request_knows_when_its_message_was_received(rig, theirs):
    """Since then the broker waits for an ack; what a sender wrote there counts for nothing."""
    before = time.monotonic()

    request = rig.request(**{RECEIVED_AT_HEADER: theirs})

    assert before <= request.request_dict[RECEIVED_AT_HEADER] <= time.monotonic()


def test_an_own_message_shows_what_it_brings_along(rig):
    """Its summary was made by the producer; to read the event for it costs too much."""
    sent = "POST logx.optimizely.com, project 7, 99 events, 1.0 kB"

    assert rig.request(argsrepr=sent).argsrepr == sent


@pytest.mark.parametrize("sent", ["secret", "POST secret\n", 5, "", "('secret',)", ["secret"]])
def test_what_is_no_summary_is_not_shown_whoever_says_that_it_is_ours(rig, sent):
    """A header of ours can be written by anybody."""
    request = rig.request(argsrepr=sent, kwargsrepr=sent)

    assert request.argsrepr.startswith("POST logx.optimizely.com, project 111001, 1 event, ")
    assert request.kwargsrepr == "{}"


def record(exc):
    return logging.LogRecord("x", 30, "x", 1, "m", (), (type(exc), exc, None) if exc else None)


@pytest.mark.parametrize(
    ("exc", "shown", "with_traceback"),
    [
        (GiveBack(PAUSED, 0.0), False, False),
        (GiveBack("the store is away"), True, False),
        (Reject("somebody's"), True, True),
        (KeyError("x"), True, True),
        (None, True, False),
    ],
)
def test_celery_s_own_lines_on_give_backs_have_no_traceback(exc, shown, with_traceback):
    """As a pause begins there would be hundreds of them, and of those there is not even a line."""
    made = record(exc)

    assert give_backs_in_a_line(made) is shown

    assert (made.exc_info is not None) is with_traceback


def test_an_error_that_was_dealt_with_holds_no_frames(rig):
    """Each would hold half a megabyte for as long as an outage lasts."""
    error = GiveBack("x", 1.0)

    rig.fail(error)

    assert error.__traceback__ is None
