"""A retry that the broker does not take: the event stays where it is, and comes again."""

from __future__ import annotations

import signal

import pytest
import redis

from optly_celery import dispatch
from optly_celery.testing.server import Answer

from ..conftest import celery_app
from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line, batch_of, uuids_in
from ..support import US_URL, eventually, params_of

POOLS = ["threads", "prefork", "solo", "gevent"]
HOLD_S = 0.4  # the endpoint thinks for so long, which is when the broker breaks


@pytest.fixture
def line(tmp_path):
    with Line(tmp_path, config=IMPATIENT, **IMPATIENT_SETTINGS) as made:
        yield made


def out_of_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def read_only(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)  # as the old primary after a failover


def heal(client: redis.Redis) -> None:
    client.config_set("maxmemory", 0)
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("pool", "break_it"),
    [
        *((pool, out_of_memory) for pool in POOLS),
        ("threads", read_only),
        pytest.param("prefork", read_only, marks=pytest.mark.slow),
        pytest.param("gevent", read_only, marks=pytest.mark.slow),
    ],
)
def test_a_retry_that_is_not_published_loses_nothing(line, pool, break_it):
    """The broker refuses the retry; the worker lives, and delivers once the broker is well."""
    worker = line.work("-c", "2", pool=pool)
    _fail_once_while(line, break_it)
    eventually(lambda: "retry not published" in worker.output(), what=worker.log)
    assert not line.is_empty()
    assert len(line.collector.received) == 1

    heal(line.broker.client())

    eventually(lambda: len(line.posts("u-1")) == 2)
    first, second = line.posts("u-1")
    assert first.body == second.body
    eventually(line.is_empty)
    assert worker.process.poll() is None


def test_a_retry_that_is_not_published_shows_as_a_retry(line):
    """Flower shows neither a failure nor a success before the event was delivered."""
    with line.watch:
        worker = line.work("-c", "2")
        _fail_once_while(line, out_of_memory)
        eventually(lambda: "retry not published" in worker.output(), what=worker.log)

        heal(line.broker.client())

        (task_id,) = {e["uuid"] for e in line.watch.heard if e["type"] == "task-received"}
        line.ends(task_id, "SUCCESS")
    assert "task-retried" in line.watch.kinds(task_id)
    assert "task-failed" not in line.watch.kinds(task_id)
    assert "retry not published" in line.watch.last(task_id, "task-retried")["exception"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_meanwhile_takes_nothing_with_it(line, pool, number):
    """Neither retried nor given back when the worker ends: the next worker delivers it."""
    worker = line.work("-c", "2", pool=pool)
    _fail_once_while(line, out_of_memory)
    eventually(lambda: "retry not published" in worker.output(), what=worker.log)
    worker.signal(number, group=number == signal.SIGKILL)
    worker.process.wait(30)
    heal(line.broker.client())

    line.work("-c", "2", pool=pool)

    eventually(lambda: len(line.posts("u-1")) == 2)
    eventually(line.is_empty)


def test_what_a_batch_has_delivered_comes_again_rather_than_not_at_all(line):
    """A part was taken, the rest has to be retried and cannot be: duplicates, no loss."""
    worker = line.work("-c", "2")
    answers = iter([413, Answer(204, {}, HOLD_S), 503])
    line.collector.script(*answers)
    with celery_app(line.broker.url):
        dispatch(US_URL, batch_of("a", "b"))
    eventually(lambda: len(line.collector.received) == 2)
    out_of_memory(line.broker.client())
    eventually(lambda: "retry not published" in worker.output(), what=worker.log)

    heal(line.broker.client())

    eventually(line.is_empty)
    taken = uuids_in(r.body for r in line.collector.received if r.answer.status == 204)
    assert set(taken) == {"u-a", "u-b"}


def _fail_once_while(line, break_it):
    """Have an event posted and answered with 503, and the broker broken in between."""
    line.collector.script(Answer(503, {}, HOLD_S))
    with celery_app(line.broker.url):
        dispatch(US_URL, params_of(uuid="u-1"))
    eventually(lambda: line.collector.received)
    break_it(line.broker.client())
