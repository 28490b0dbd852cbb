"""What a retry carries, what people see of it, and what Celery does not receive for now."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest
from celery.app.task import Context
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError

from optly_celery.errors import NotAnEventError, TransientDeliveryError
from optly_celery.event.event import Event
from optly_celery.names import DELIVER_TASK, ENQUEUED_AT_HEADER, PARTS_HEADER, REFUSED_HEADER
from optly_celery.worker.parts import parts_of
from optly_celery.worker.pause.policy import Ended
from optly_celery.worker.request import PAUSED, DeliverRequest, GiveBack
from optly_celery.worker.task import DeliverTask, _pauses

from ...support import US_URL, params_of
from .doubles import SINCE, Consumer, a_message, an_app

SHOWN = "POST logx.optimizely.com, project 111001, 1 event, 734 B"


class Sender:
    """Stands for kombu's producer, and for what makes one; ``error`` is what publishing raises."""

    def __init__(self):
        self.sent = []
        self.error = None
        self.connection = SimpleNamespace(_reraise_as_library_errors=contextlib.nullcontext)

    @contextlib.contextmanager
    def producer(self):
        yield self

    def publish(self, body, **options):
        if self.error is not None:
            raise self.error
        self.sent.append((body, options))

    @property
    def only(self):
        ((body, options),) = self.sent
        return body, options["headers"], options


class Double(DeliverTask):
    """The deliver task without its delivery, and with a producer of the test's."""

    name = DELIVER_TASK
    max_retries = None
    ignore_result = True
    serializer = "json"

    def __init__(self):
        super().__init__()
        self.sender = Sender()

    @property
    def runtime(self):
        return SimpleNamespace(publisher=self.sender, settings=SimpleNamespace(queue="optimizely"))

    def run(self, *_, **__):
        return None


@pytest.fixture
def app():
    return an_app()


@pytest.fixture
def task(app):
    return app.register_task(Double())


@contextlib.contextmanager
def running(task, *args, **request):
    """As within an attempt of the task."""
    known = {
        "id": "t-1",
        "task": DELIVER_TASK,
        "args": list(args or (US_URL, "POST", params_of())),
        "kwargs": {},
        "retries": 0,
        "called_directly": False,
        "is_eager": False,
        "delivery_info": {"routing_key": "optimizely"},
        "argsrepr": SHOWN,
        ENQUEUED_AT_HEADER: SINCE,
    }
    task.request_stack.push(Context(known | request))
    try:
        yield
    finally:
        task.request_stack.pop()


def away(retry_in_s=None):
    return TransientDeliveryError("", reason="http_503", status=503, retry_in_s=retry_in_s)


def test_a_retry_carries_the_event_and_since_when(task):
    """The same task again: its age and what earlier attempts have kept go on counting."""
    with running(task, retries=4, **{REFUSED_HEADER: 2}), pytest.raises(Retry):
        task.retry(exc=away(2.0))

    body, headers, options = task.sender.only
    assert list(body[0]) == [US_URL, "POST", params_of()]
    assert (headers["id"], headers["retries"]) == ("t-1", 5)
    assert (headers[ENQUEUED_AT_HEADER], headers[REFUSED_HEADER]) == (SINCE, 2)
    assert (headers["argsrepr"], headers["kwargsrepr"]) == (SHOWN, "{}")
    assert options["retry"] is False


def test_a_retry_of_a_whole_event_has_refused_nothing(task):
    """The header is there with 0, so that a later attempt need not guess."""
    with running(task), pytest.raises(Retry):
        task.retry(exc=away(2.0))

    assert task.sender.only[1][REFUSED_HEADER] == 0


def test_a_retry_carries_how_far_the_event_is_split(task):
    """So that no POST is made again of which it is known that it is refused as a whole."""
    with running(task, **{PARTS_HEADER: [2, 2, 4]}), pytest.raises(Retry):
        task.retry(exc=away(2.0))

    assert task.sender.only[1][PARTS_HEADER] == [2, 2, 4]


@pytest.mark.parametrize("parts", [None, []])
def test_a_retry_of_a_whole_event_says_nothing_of_parts(task, parts):
    """Most are whole, and what every message carries costs every message."""
    with running(task, **{PARTS_HEADER: parts}), pytest.raises(Retry):
        task.retry(exc=away(2.0))

    assert PARTS_HEADER not in task.sender.only[1]


def test_what_failed_at_nothing_spends_no_attempt(task):
    """A worker that ends, or whose time is over, publishes the rest, as the same attempt."""
    error = TransientDeliveryError("", reason="shutdown", retry_in_s=0.0, spends=False)
    with running(task, retries=4), pytest.raises(Retry):
        task.retry(exc=error)

    _, headers, options = task.sender.only
    assert headers["retries"] == 4
    assert (headers.get("eta"), options.get("countdown")) == (None, None)


@pytest.mark.parametrize("theirs", [None, 99.0])
def test_the_policy_s_wait_counts_and_not_celery_s(task, theirs):
    """Celery's is made of numbers that threads shared before 5.6."""
    with running(task), pytest.raises(Retry) as caught:
        task.retry(exc=away(7.0), countdown=theirs)

    assert caught.value.when == 7.0


@pytest.mark.parametrize("exc", [away(None), KeyError("x")])
def test_without_the_policy_s_the_countdown_is_the_caller_s(task, exc):
    """So for an error that no policy has seen."""
    with running(task), pytest.raises(Retry) as caught:
        task.retry(exc=exc, countdown=9.0)

    assert caught.value.when == 9.0


def test_a_wait_of_nothing_is_a_wait(task):
    """0 is what the policy said; Celery's default would be three minutes."""
    with running(task), pytest.raises(Retry) as caught:
        task.retry(exc=away(0.0), countdown=9.0)

    assert caught.value.when == 0.0


@pytest.mark.parametrize("countdown", [7.0, 0.0])
def test_a_retry_that_is_not_published_is_given_back(task, countdown):
    """Celery would reject the message, which on Redis deletes it; here it waits as long."""
    task.sender.error = OperationalError("redis://:secret@host is away")

    with running(task), pytest.raises(GiveBack) as caught:
        task.retry(exc=away(countdown))

    assert caught.value.countdown == countdown
    assert caught.value.requeue
    assert caught.value.reason.startswith("retry not published: the broker ")
    assert "secret" not in str(caught.value.reason)


def test_a_retry_without_any_countdown_is_given_back_at_once(task, monkeypatch):
    """There is no wait to be kept."""
    monkeypatch.setattr("celery.Task.retry", lambda *_, **__: (_ for _ in ()).throw(Reject("no")))

    with running(task), pytest.raises(GiveBack) as caught:
        task.retry(exc=away(None))

    assert (caught.value.countdown, caught.value.reason) == (
        0.0, "retry not published: the broker refused",
    )  # fmt: skip


def test_no_more_than_some_publish_retries_at_once(task):
    """A connection takes half a megabyte, and in an outage all threads fail at once."""
    free = []
    task.sender.publish = lambda *_, **__: free.append(task._publishing._value)

    with running(task), pytest.raises(Retry):
        task.retry(exc=away(1.0))

    assert free == [7]
    assert task._publishing._value == 8


def test_a_failed_publish_makes_room_for_the_next(task):
    """Or eight failures would be the last that this worker publishes."""
    task.sender.error = OperationalError("away")
    for _ in range(9):
        with running(task), pytest.raises(GiveBack):
            task.retry(exc=away(1.0))

    assert task._publishing._value == 8


def test_in_line_there_is_no_second_attempt(task):
    """No one waits there, and the dispatcher is told."""
    error = away(3.0)

    with running(task, is_eager=True), pytest.raises(TransientDeliveryError) as caught:
        task.retry(exc=error)

    assert caught.value is error
    assert task.sender.sent == []


@pytest.mark.parametrize("since", [None, "yesterday", []])
def test_an_event_that_does_not_say_since_when_is_as_old_as_its_attempt(task, since):
    """Another program's message: it would be wrong to give it up for its age."""
    before = time.time()

    with running(task, **{ENQUEUED_AT_HEADER: since}):
        assert before <= task.enqueued_at() <= time.time()


def test_apply_async_shows_a_summary(task):
    """Celery would put the arguments' text into a header, a log line and Flower."""
    task.apply_async((US_URL, "POST", params_of("somebody")), {"headers": {"X": "secret"}})

    _, headers, options = task.sender.only
    assert headers["argsrepr"].startswith("POST logx.optimizely.com, project 111001, 1 event, ")
    assert headers["kwargsrepr"] == "{}"
    assert "somebody" not in str(headers)
    assert options["routing_key"] == "optimizely"


def test_apply_async_notes_when_the_event_came(task):
    """Its age counts from here, unless the caller says since when."""
    before = time.time()
    task.apply_async((US_URL, "POST", {}))
    task.apply_async((US_URL, "POST", {}), headers={ENQUEUED_AT_HEADER: SINCE, "x": 1})

    first, second = (options["headers"] for _, options in task.sender.sent)
    assert before <= first[ENQUEUED_AT_HEADER] <= time.time()
    assert (second[ENQUEUED_AT_HEADER], second["x"]) == (SINCE, 1)


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        (("", "POST", {}), None, "no_url"),
        ((US_URL, "PUT", {}), None, "bad_verb"),
        ((US_URL, "POST", "["), None, "params_not_json"),
        ((US_URL, "POST", []), None, "params_not_an_object"),
        ((US_URL, "POST", {}), {"headers": 5}, "bad_headers"),
    ],
)
def test_apply_async_refuses_what_is_no_event(task, args, kwargs, reason):
    """The caller is there and can mend it; a worker could only keep it."""
    with pytest.raises(NotAnEventError) as caught:
        task.apply_async(args, kwargs)

    assert caught.value.reason == reason
    assert task.sender.sent == []


@pytest.mark.parametrize("place", [{"queue": "mine"}, {"routing_key": "mine", "exchange": "mine"}])
def test_apply_async_goes_where_the_caller_says(task, place):
    """Only who says nothing gets the deliver queue."""
    task.apply_async((US_URL, "POST", {}), **place)

    assert task.sender.only[2]["routing_key"] == "mine"


def no_reading(monkeypatch):
    monkeypatch.setattr(
        Event, "of", classmethod(lambda *_, **__: pytest.fail("the event was read"))
    )


def test_a_retry_takes_its_summary_from_its_message(task, monkeypatch):
    """The text of a batch takes as long to read as all else that a retry does."""
    no_reading(monkeypatch)

    with running(task, US_URL, "POST", "no JSON at all"), pytest.raises(Retry):
        task.retry(exc=away(1.0))

    assert task.sender.only[1]["argsrepr"] == SHOWN


@pytest.mark.parametrize("shown", [None, "['https://…', {'visitor': 'somebody'}]", "", 5])
def test_a_retry_of_a_message_without_a_summary_makes_one(task, shown):
    """What another producer shows may be anything: nothing of it is passed on."""
    with running(task, argsrepr=shown), pytest.raises(Retry):
        task.retry(exc=away(1.0))

    assert task.sender.only[1]["argsrepr"].startswith("POST logx.optimizely.com, project 111001")


def test_another_event_sent_within_an_attempt_has_its_own_summary(task):
    """Only the task's own retry is the event that its message is about."""
    with running(task):
        task.apply_async((US_URL, "GET", {"project_id": "7"}))

    assert task.sender.only[1]["argsrepr"].startswith("GET logx.optimizely.com, project 7, ")


def test_an_eager_app_needs_no_broker(app, task):
    """It runs the task in line."""
    app.conf.task_always_eager = True

    assert task.apply_async((US_URL, "POST", {})).successful()

    assert task.sender.sent == []


class Received:
    """A worker's receipt of the deliver task's messages, with Celery's own strategy behind."""

    def __init__(self, app, task):
        self.consumer = Consumer(app)
        self.receive = task.start_strategy(app, self.consumer)
        self.parts = parts_of(self.consumer)

    def __call__(self, message):
        self.receive(message, None, message.ack_log_error, message.reject_log_error, [])
        return message.channel.words

    def pause(self, url=US_URL):
        pausing = self.parts.pausing
        for n in range(99):
            if not pausing.admits(f"f-{n}", url):
                return
            pausing.ended(f"f-{n}", url, Ended.FAILED, away())


@pytest.fixture
def received(app, task):
    return Received(app, task)


def test_what_may_be_received_celery_receives(received, task):
    """By its own strategy, as a request of ours."""
    assert received(a_message()) == []

    (request,) = received.consumer.requests
    assert isinstance(request, DeliverRequest)
    assert (request.id, request.task) == ("t-1", task)


def test_what_may_not_be_received_now_never_reaches_celery(received):
    """No log line, no event and no place in the pool, for a message that goes back at once."""
    received.pause()

    assert received(a_message()) == ["give back"]

    assert received.consumer.requests == []


def test_other_hosts_messages_are_received_meanwhile(received):
    """And those that name no host at all, for the task to keep."""
    received.pause()

    received(a_message(url="https://eu.logx.optimizely.com/v1/events"))
    received(a_message(5, 5, 5))

    assert len(received.consumer.requests) == 2


def test_a_probe_counts_where_it_is_received(received):
    """The request that follows asks again, and is let by."""
    assert received(a_message()) == []
    (request,) = received.consumer.requests
    received.pause()

    assert request.revoked()


def test_messages_of_protocol_1_are_received(received):
    """They come decoded; what pauses them is asked when they are handed to the pool."""
    body = {"id": "t-1", "task": DELIVER_TASK, "args": [US_URL, "POST", {}], "kwargs": {}}
    message = a_message(body=body)
    message.headers = {}
    received.receive(message, body, None, None, [])

    assert [one.id for one in received.consumer.requests] == ["t-1"]


def test_what_was_put_off_goes_the_way_celery_hands_requests_over(received, task):
    """A suspect that has waited for another one comes back by it."""
    task.run_request("a request")

    assert received.consumer.requests == ["a request"]


def test_a_new_connection_goes_on_with_the_same_parts(received, app, task):
    """What was paused stays paused; another worker's are its own."""
    before = task.parts
    task.start_strategy(app, received.consumer)
    assert task.parts is before

    task.start_strategy(app, Consumer(app))
    assert task.parts is not before


def test_what_waits_in_the_pool_is_not_posted_once_a_pause_begins(received, task):
    """It goes back at once and has spent no attempt."""
    with running(task):
        task.give_back_if_paused(US_URL)
        received.pause()
        with pytest.raises(GiveBack) as caught:
            task.give_back_if_paused(US_URL)

    assert (caught.value.reason, caught.value.countdown) == (PAUSED, 0.0)


def test_outside_a_worker_nothing_is_paused(task):
    """In line, or in a test: there are no parts, and the task just posts."""
    task.give_back_if_paused(US_URL)


def test_a_worker_without_the_deliver_task_has_paused_nothing(app):
    """`status` asks every worker there is."""
    assert _pauses(SimpleNamespace(consumer=Consumer(app))) == []
    assert _pauses(SimpleNamespace(consumer=None)) == []


def test_a_worker_answers_what_it_has_paused(received):
    """A person sees it by the command that `status` sends."""
    received.pause()

    told, late = _pauses(SimpleNamespace(consumer=received.consumer))
    assert late == {"late": 0}

    assert (told["host"], told["reason"]) == ("logx.optimizely.com", "http_503")
