"""Every verdict, through a real worker process: what is posted, kept, and shown in Flower."""

from __future__ import annotations

import itertools
import json
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from optly_celery.names import DELIVER_TASK, ENQUEUED_AT_HEADER
from optly_celery.tasks import deliver
from optly_celery.testing.server import Answer, Server

from ..conftest import celery_app
from ..line import Line, batch_of, uuids_in
from ..support import US_URL, eventually, free_port, params_of

_count = itertools.count()

BACKOFF_MAX_S = 3.5


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """One worker for all tests here: three attempts, short waits."""
    settings = {
        "retry_backoff": 0.05,
        "retry_backoff_max": BACKOFF_MAX_S,
        "request_timeout": 0.5,
        "max_retries": 2,
        "pause_after": 0,  # one event's attempts are looked at here, not what follows for others
    }
    made = Line(tmp_path_factory.mktemp("line"), **settings)
    with made, made.watch:
        made.work("-c", "4")
        yield made
        _assert_nothing_personal(made)


@pytest.fixture(autouse=True)
def shop(line):
    """The user's app, and an endpoint that is well again."""
    line.collector.down = line.collector.choose = None
    with celery_app(line.broker.url) as app:
        yield app


@pytest.fixture
def uuid():
    """An event's own uuid, so that tests find their posts among others'."""
    return f"u-{next(_count)}"


def _assert_nothing_personal(line):
    """Nothing a person can look at holds a visitor id or an attribute's value."""
    shown = json.dumps(line.watch.heard) + "".join(w.output() for w in line.workers)
    assert "task-received" in shown
    for secret in ("visitor-", "secret of", "visitor_id"):
        assert secret not in shown


@pytest.mark.parametrize("status", [200, 202, 204])
def test_what_the_endpoint_takes_is_a_success(line, uuid, status):
    """One POST, SUCCESS in Flower, and nothing left in the broker."""
    line.collector.script(status)

    task_id = deliver.delay(US_URL, "POST", params_of(uuid=uuid)).id

    line.ends(task_id, "SUCCESS")
    assert len(line.posts(uuid)) == 1
    assert line.letters(task_id) == []
    eventually(line.is_empty)


@pytest.mark.parametrize("status", [301, 302, 304, 400, 401, 403, 404, 410, 413, 422, 451])
def test_a_refused_event_is_kept_and_fails(line, uuid, status):
    """One POST, a dead letter with the unchanged event, FAILURE in Flower; no second attempt."""
    line.collector.script(Answer(status, {"Location": "/elsewhere"}))

    params = params_of(uuid=uuid)
    task_id = deliver.delay(US_URL, "POST", params).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert (letter.reason, letter.status, letter.attempts) == (f"http_{status}", status, 1)
    assert line.kept(letter).params == params
    assert len(line.posts(uuid)) == 1
    assert line.watch.last(task_id, "task-failed")["exception"].startswith("PermanentDeliveryErr")
    eventually(line.is_empty)


def test_the_endpoint_s_words_are_kept_and_shown_nowhere_else(line, uuid):
    """In the letter; not in a log, an event for monitors, or an error that Celery shows."""
    line.collector.script(Answer(400, body=f"visitor_id: visitor-1 of {uuid}".encode()))

    task_id = deliver.delay(US_URL, "POST", params_of(uuid=uuid)).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert line.dead.show(letter.id).answer == f"visitor_id: visitor-1 of {uuid}"
    # And `_assert_nothing_personal` looks at all the rest.


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_batch_is_split_until_the_guilty_stands_alone(line, uuid, status):
    """The innocent visitors are delivered, each once; the guilty one is kept; FAILURE."""
    guilty = f"{uuid}-guilty"
    visitors = [f"{uuid}-a", f"{uuid}-b", guilty, f"{uuid}-c", f"{uuid}-d"]
    refuse = f"u-{guilty}".encode()
    line.collector.choose = lambda _m, _t, body: Answer(status) if refuse in body else None

    task_id = deliver.delay(US_URL, "POST", batch_of(*visitors)).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert line.kept(letter).params == batch_of(guilty)
    taken = [r.body for r in line.collector.received if r.answer.status == 204]
    ours = [u for u in uuids_in(taken) if u.startswith(f"u-{uuid}-")]
    assert ours == [f"u-{v}" for v in visitors if v != guilty]


@pytest.mark.parametrize(
    "answer",
    [*map(Answer, [408, 425, 429, 500, 502, 503, 504, 599]), Answer(None), Answer(204, {}, 1.0)],
    ids=lambda answer: f"{answer.status} after {answer.delay_s} s",
)
def test_a_transient_failure_is_retried_until_it_succeeds(line, uuid, answer):
    """RETRY in Flower, then the same bytes again, then SUCCESS; no dead letter."""
    line.collector.script(answer)

    task_id = deliver.delay(US_URL, "POST", params_of(uuid=uuid)).id

    line.ends(task_id, "SUCCESS")
    eventually(lambda: "task-retried" in line.watch.kinds(task_id))  # the wait is that short
    first, second = line.posts(uuid)
    assert first.body == second.body
    assert line.letters(task_id) == []


def test_a_refused_connection_is_retried(tmp_path, line, uuid):
    """An endpoint that is not there yet gets the event once it is."""
    port = free_port()
    line.work(
        "-Q",
        "elsewhere",
        "-c",
        "2",
        queue="elsewhere",
        url_override=f"http://127.0.0.1:{port}/v1/events",
        max_retries=100,  # three attempts may be over before it is there
    )

    task_id = deliver.apply_async((US_URL, "POST", params_of(uuid=uuid)), queue="elsewhere").id
    eventually(lambda: "task-retried" in line.watch.kinds(task_id))
    with Server(port=port) as late:
        eventually(lambda: late.received)

        line.ends(task_id, "SUCCESS")
    line.workers.pop().kill()


def test_attempts_end_with_a_dead_letter(line, uuid):
    """Three attempts, then the event is kept with the last failure's status; FAILURE."""
    line.collector.script(503, 500, 429)

    task_id = deliver.delay(US_URL, "POST", params_of(uuid=uuid)).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert (letter.reason, letter.error, letter.status) == ("attempts_exhausted", "http_429", 429)
    assert letter.attempts == len(line.posts(uuid)) == 3
    eventually(lambda: line.watch.kinds(task_id).count("task-retried") == 2)


OWN = {"X-Own": "7"}


@pytest.mark.parametrize(
    ("named", "headers"),
    [
        (("url", "verb", "params"), {}),
        (("verb", "params"), {}),
        (("params",), {}),
        ((), {}),
        (("url", "verb", "params", "headers"), OWN),
        (("params", "headers"), OWN),
        ((), OWN),
        (("headers",), OWN),
    ],
    ids=lambda value: ",".join(value) or "none",
)
def test_a_retry_posts_the_same_however_its_arguments_were_given(line, uuid, shop, named, headers):
    """By position or by name, headers too; each retry is an attempt, and attempts end."""
    line.collector.script(503, 503, 503)
    given = {"url": US_URL, "verb": "POST", "params": params_of(uuid=uuid)}
    given |= {"headers": headers} if headers else {}
    args = [value for name, value in given.items() if name not in named]
    kwargs = {name: given[name] for name in named if name in given}

    task_id = shop.send_task(DELIVER_TASK, args, kwargs, queue="optimizely").id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    posts = line.posts(uuid)
    assert (letter.reason, letter.attempts, len(posts)) == ("attempts_exhausted", 3, 3)
    assert len({p.body for p in posts}) == 1
    assert {p.headers.get("x-own") for p in posts} == {headers.get("X-Own")}
    assert line.kept(letter).headers == (headers or None)


def test_an_event_that_is_too_old_gets_no_further_attempt(line, uuid):
    """The age counts from when the event was first enqueued."""
    line.collector.script(503)
    four_days_ago = {ENQUEUED_AT_HEADER: time.time() - 4 * 86_400}

    event = (US_URL, "POST", params_of(uuid=uuid))
    task_id = deliver.apply_async(event, headers=four_days_ago).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert (letter.reason, letter.attempts) == ("too_old", 1)


def test_the_age_of_an_event_survives_its_retries(line, uuid):
    """What was young enough for its first attempt is too old after its second."""
    almost = time.time() - 3 * 86_400 + 0.5
    line.collector.script(Answer(503, {"Retry-After": "1"}), 503)

    event = (US_URL, "POST", params_of(uuid=uuid))
    task_id = deliver.apply_async(event, headers={ENQUEUED_AT_HEADER: almost}).id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert letter.reason == "too_old"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://evil.example/v1/events", "host_not_allowed"),
        ("https://logx.optimizely.com.evil.example/", "host_not_allowed"),
        ("https://logx.optimizely.com@127.0.0.1/", "host_not_allowed"),
        ("http://logx.optimizely.com/v1/events", "not_https"),
    ],
)
def test_nothing_is_sent_to_another_host(strict_worker, line, uuid, url, reason):
    """The event is kept unsent, and the collector that listens there hears nothing."""
    url = url.replace("127.0.0.1", line.collector.url.split("/")[2])
    task_id = deliver.apply_async((url, "POST", params_of(uuid=uuid)), queue="strict").id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert (letter.reason, letter.status) == (reason, None)
    assert line.kept(letter).url == url
    assert line.posts(uuid) == []


@pytest.fixture(scope="module")
def strict_worker(line):
    """A worker that posts where events say, as in production."""
    # Its own queue, or it were a worker of somebody else's, and Celery before 5.7 forgot now and
    # then to tell monitors of an end (see worker/older.py).
    return line.work("-Q", "strict", "-c", "2", queue="strict", url_override=None)


@pytest.mark.parametrize(
    ("asked", "least_s"),
    [
        (lambda: "1", 1.0),
        (lambda: _date_in(3), 2.0),
        (lambda: "86400", BACKOFF_MAX_S),
        (lambda: _date_in(-3600), 0.0),
        (lambda: "soon", 0.0),
    ],
    ids=["seconds", "date", "longer than the longest backoff", "past date", "nonsense"],
)
def test_retry_after_is_honoured(line, uuid, asked, least_s):
    """The second attempt comes when the endpoint asked for it, and not absurdly late."""
    line.collector.script(Answer(503, {"Retry-After": asked()}))

    deliver.delay(US_URL, "POST", params_of(uuid=uuid))

    eventually(lambda: len(line.posts(uuid)) == 2)
    first, second = line.posts(uuid)
    assert least_s - 0.05 <= second.at - first.at < least_s + 15


def test_two_failures_at_once_wait_their_own_time(line, uuid):
    """Before 5.6, Celery kept one countdown for all threads: each event has its own."""
    worker = line.work("-Q", "two", "-c", "2", queue="two", retry_backoff_max=10)
    waits = {f"{uuid}-{n}": n for n in (1, 7)}

    def answer(_method, _target, body):
        (found,) = uuids_in([body])
        first = len(line.posts(found)) == 0
        # Long enough for both to be on their way, so that both fail at the same moment.
        return Answer(503, {"Retry-After": str(waits[found])}, 0.3) if first else None

    line.collector.choose = answer
    for found in waits:
        deliver.apply_async((US_URL, "POST", params_of(uuid=found)), queue="two")

    eventually(lambda: all(len(line.posts(found)) == 2 for found in waits))
    (first, second), (other, last) = (line.posts(found) for found in waits)
    assert 1 <= second.at - first.at < 7 <= last.at - other.at
    line.workers.remove(worker)
    worker.kill()


def test_the_summary_is_all_that_is_shown(line, uuid, shop):
    """By name, by ``delay`` and by another program: Flower's arguments are a line about them."""
    args = [US_URL, "POST", params_of(uuid=uuid)]
    by_delay = deliver.delay(*args).id
    by_keywords = deliver.delay(url=US_URL, verb="POST", params=args[2]).id
    by_name = shop.send_task(DELIVER_TASK, args, queue="optimizely").id

    for task_id in (by_delay, by_keywords, by_name):
        line.ends(task_id, "SUCCESS")
        received = line.watch.last(task_id, "task-received")
        assert received["args"].startswith("POST logx.optimizely.com, project 111001, 1 event, ")
        assert received["kwargs"] == "{}"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {}),
        ([US_URL], {}),
        ([US_URL, "DELETE", {"visitor_id": "visitor-9"}], {}),
        ([US_URL, "POST", ["visitor-9"]], {}),
        ([US_URL, "POST", "visitor-9"], {}),
        ([{"visitor_id": "visitor-9"}, 7, None], {}),
        ([US_URL, "POST", {}], {"headers": ["visitor-9"]}),
    ],
    ids=["nothing", "url only", "verb", "list", "not JSON", "wrong types", "headers"],
)
def test_a_message_that_is_no_event_is_kept(line, shop, args, kwargs):
    """Any program may enqueue; what it got wrong is not deleted but kept, and never posted."""
    before = line.collector.count

    task_id = shop.send_task(DELIVER_TASK, args, kwargs, queue="optimizely").id

    line.ends(task_id, "FAILURE")
    (letter,) = line.letters(task_id)
    assert letter.status is None
    assert line.collector.count == before


def test_arguments_that_do_not_exist_yet_do_not_cost_the_event(line, shop, uuid):
    """A newer program may send more than this worker knows."""
    args = [US_URL, "POST", params_of(uuid=uuid), None, "more"]

    task_id = shop.send_task(DELIVER_TASK, args, {"other": 1}, queue="optimizely").id

    line.ends(task_id, "SUCCESS")
    assert len(line.posts(uuid)) == 1


def _date_in(seconds):
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)
