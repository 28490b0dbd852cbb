"""``status``, on a real broker with real workers, and on brokers that are not well."""

from __future__ import annotations

import json
import socket
import time

import pytest

from optly_celery import dispatch
from optly_celery.cli.exits import FAILED, OK, UNREACHABLE
from optly_celery.worker.receive.scripts import ASIDE

from ..commands import invoke
from ..conftest import celery_app
from ..letters import Clock, keep, store
from ..support import US_URL, eventually, free_port, params_of

PROJECT = """
from celery import Celery

app = Celery("shop", broker={url!r})
app.conf.update(task_default_queue="shop", broker_connection_retry_on_startup=True, {more})
"""


def run(app, *arguments, timeout_s=0.3):
    """The command's outcome."""
    return invoke("status", "--timeout", str(timeout_s), *arguments, app=app)


def run_with_worker(app, *arguments):
    """The same, once a worker answers: it says that it is ready before it listens for questions."""
    eventually(lambda: app.control.ping(timeout=1), what="a worker answers")
    return run(app, *arguments, timeout_s=3)


def found_in(app):
    """What ``--json`` tells."""
    return json.loads(run(app, "--json").stdout)


def test_a_worker_on_the_queue_is_healthy(app, broker, make_worker):
    """With dead letters too, which are mentioned."""
    dead = store(broker)
    for number, reason in enumerate(["http_400", "http_413", "http_400"]):
        keep(dead, number, reason=reason)
    make_worker(broker.url)

    done = run_with_worker(app)

    assert done.exit_code == OK
    assert done.stderr == ""
    assert "consumes optimizely" in done.stdout
    assert "3 (http_400: 2, http_413: 1)" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == "healthy: 1 worker on optimizely; 3 dead letters kept for a person"


def test_what_waits_and_what_is_held_is_counted(app, broker, collector, make_worker):
    """In the queue and its sub-queues for other priorities, and unacked at a worker."""
    for number in range(3):
        dispatch(US_URL, params_of(uuid=f"u-{number}"))
    broker.client().rpoplpush("optimizely", "optimizely\x06\x163")
    before = found_in(app)
    collector.script(*[503] * 100)
    make_worker(broker.url, url_override=collector.url, retry_backoff=200)
    eventually(lambda: len(collector.received) >= 3)

    assert _counts(before) == (3, 0)
    eventually(lambda: _counts(found_in(app)) == (0, 3), what="all three held for a retry")


def test_no_worker_is_unhealthy(app, broker):
    """What waits is safe, but nobody takes it."""
    dispatch(US_URL, params_of())

    done = run(app)

    assert done.exit_code == FAILED
    assert "optimizely: 1 waiting, 0 unacked" in done.stdout
    assert done.stdout.splitlines()[-1] == "unhealthy: no worker answers: start one"


def test_one_worker_can_be_asked_alone(app, broker, make_worker):
    """As a container's health check does; %h is this host, as in ``celery worker -n``."""
    make_worker(broker.url, "-n", "one@%h")

    done = run_with_worker(app, "--worker", "one@%h")
    other = run(app, "--worker", "celery@%h", "--json")

    assert done.exit_code == OK
    assert f"one@{socket.gethostname()} consumes optimizely" in done.stdout
    assert "dead letters" not in done.stdout
    assert other.exit_code == FAILED
    told = json.loads(other.stdout)
    assert told["verdict"] == (
        f"unhealthy: the worker celery@{socket.gethostname()} does not answer"
    )
    assert told["dead_letters"] is None


def test_a_worker_asked_alone_answers_for_itself_only(broker, make_worker):
    """A dead letter store that is away is no reason to restart every worker."""
    make_worker(broker.url)
    url = f"redis://127.0.0.1:{free_port()}/0"
    with celery_app(broker.url, optly_dead_letter_url=url) as app:
        assert run_with_worker(app, "--worker", "celery@%h").exit_code == OK


def test_a_worker_on_another_queue_is_unhealthy(app, broker, make_worker):
    """The usual mistake in a project with queues of its own."""
    make_worker(broker.url, "-Q", "mail")

    done = run_with_worker(app)

    assert done.exit_code == FAILED
    assert "does not consume optimizely" in done.stdout
    assert "start one with -Q optimizely" in done.stdout


def test_a_worker_without_the_task_is_unhealthy(app, broker, make_worker, tmp_path):
    """Celery would take the message, not know what to do, and throw it away."""
    (tmp_path / "shop.py").write_text(PROJECT.format(url=broker.url, more=""))
    make_worker(broker.url, "-Q", "optimizely", "--pool", "solo", app="shop")

    done = run_with_worker(app)

    assert done.exit_code == FAILED
    assert "has no deliver task" in done.stdout
    assert "would lose events, having no task optly_celery.deliver" in done.stdout


def test_an_app_with_a_key_prefix_sees_what_is_its_own(broker):
    """Queue, unacked messages and dead letters alike."""
    keep(store(broker), 1)
    broker.client().hset("unacked", "tag", "message")
    with celery_app(
        broker.url,
        broker_transport_options={"global_keyprefix": "shop.", "visibility_timeout": 999},
    ) as app:
        dispatch(US_URL, params_of())
        keep(store(broker, key_prefix="shop."), 2, reason="not_https")
        broker.client().hset("shop.unacked", mapping={"1": "m", "2": "m"})

        found = found_in(app)

    assert (found["waiting"], found["unacked"]) == (1, 2)
    assert found["dead_letters_by_reason"] == {"not_https": 1}


def test_letters_removed_for_their_age_are_told(app, broker):
    """A loss by setting is a loss, and counted."""
    clock = Clock()
    dead = store(broker, clock=clock, max_age_s=60)
    keep(dead, 1)
    clock.now += 61
    keep(dead, 2)

    assert found_in(app)["dead_letters_expired"] == 1
    assert "1 removed for their age" in run(app).stdout


def test_another_queue_name_is_followed(broker, make_worker):
    """The setting's, for app and worker."""
    make_worker(broker.url, queue="events")
    with celery_app(broker.url, optly_queue="events") as app:
        dispatch(US_URL, params_of())

        assert run_with_worker(app).exit_code == OK


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_broker_that_refuses_is_one_sentence(as_json):
    """With what to do, and without its password."""
    with celery_app(f"redis://user:secret@127.0.0.1:{free_port()}/0") as app:
        done = run(app, *as_json)

    assert done.exit_code == UNREACHABLE
    assert "the broker redis://127.0.0.1:" in done.stderr
    assert "cannot be reached" in done.stderr
    assert "Check that it runs, and that broker_url" in done.stderr
    assert "secret" not in done.output
    if as_json:
        found = json.loads(done.stdout)
        assert (found["healthy"], found["waiting"]) == (False, None)
    else:
        assert done.stdout == ""


def test_no_connection_without_limits_is_used(app):
    """One of the app's own would wait for a hung broker forever."""
    run(app)

    assert (app._pool, app.amqp._producer_pool) == (None, None)


def test_a_hung_broker_is_given_up_in_time(own_broker):
    """Within the timeout, and not once for each question."""
    own_broker.freeze()
    start = time.monotonic()

    with celery_app(own_broker.url) as app:
        done = run(app, timeout_s=2)

    assert time.monotonic() - start < 6
    assert done.exit_code == UNREACHABLE
    assert "did not answer in time" in done.stderr


def test_a_broker_that_lets_nobody_in_is_told_from_one_that_is_away(own_broker):
    """The password is wrong, not the address."""
    own_broker.client().config_set("requirepass", "right")

    with celery_app(own_broker.url.replace("127.", ":secret@127.")) as app:
        done = run(app)

    assert done.exit_code == UNREACHABLE
    assert "refused the user name or password" in done.stderr
    assert "secret" not in done.output


def test_a_full_broker_is_unhealthy_but_still_counted(own_broker):
    """What waits can be read; workers cannot be asked."""
    with celery_app(own_broker.url) as app:
        dispatch(US_URL, params_of())
        own_broker.client().config_set("maxmemory", "1mb")

        done = run(app)

    assert done.exit_code == FAILED
    assert "1 waiting" in done.stdout
    assert "workers       unknown" in done.stdout
    assert "workers could not be asked: the broker is out of memory" in done.stdout


def test_a_dead_letter_store_that_is_away_is_unhealthy(broker, make_worker):
    """Workers could not keep what is refused."""
    make_worker(broker.url)
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with celery_app(broker.url, optly_dead_letter_url=url) as app:
        done = run_with_worker(app)

    assert done.exit_code == FAILED
    assert "dead letters  unknown" in done.stdout
    assert "unhealthy: the dead letter store redis://127.0.0.1:" in done.stdout
    assert "secret" not in done.output


def test_a_broker_other_than_redis_is_asked_through_kombu(broker):
    """It has no unacked messages that could be counted."""
    with celery_app("memory://", optly_dead_letter_url=broker.url) as app:
        dispatch(US_URL, params_of())

        found = found_in(app)

    assert (found["waiting"], found["unacked"]) == (1, None)
    assert found["workers"] == []


def _counts(found):
    return found["waiting"], found["unacked"]


def test_what_is_no_message_and_waits_to_be_kept_is_told(app, broker):
    """How else would one know that no worker takes it."""
    broker.client().lpush(ASIDE % "optimizely", b"visitor-1 {", b"\x80")

    told = run(app)

    assert "2, waiting in optimizely.unreadable for a worker to keep" in told.stdout
    assert found_in(app)["unreadable"] == 2
    assert "visitor-1" not in told.output
