"""The same task inside a user's own Celery app, found either way, on every pool."""

from __future__ import annotations

import pytest

from optly_celery import dispatch
from optly_celery.testing.server import Answer

from ..conftest import celery_app
from ..support import US_URL, eventually, params_of

SHOP = """
from celery import Celery

app = Celery("shop", broker={broker!r}, include=["optly_celery.tasks"])
app.conf.update(
    optly_url_override={url!r},
    optly_retry_backoff=0.1,
    optly_retry_backoff_max=0.5,
    broker_connection_retry_on_startup=True,
    **{more!r},
)


@app.task
def ship(order):
    print(f"shipped {{order}}")
"""

DJANGO_LIKE = """
import types

from celery import Celery

settings = types.SimpleNamespace(
    CELERY_BROKER_URL={broker!r},
    CELERY_OPTLY_URL_OVERRIDE={url!r},
    CELERY_OPTLY_RETRY_BACKOFF="0.1",
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP=True,
    OPTLY_SDK_KEY="somebody else's",
)
app = Celery("shop")
app.config_from_object(settings, namespace="CELERY")
app.autodiscover_tasks(["optly_celery"])
"""

CONSUME = ("-Q", "celery,optimizely", "-c", "2")


@pytest.fixture
def shop(tmp_path, broker, collector, make_worker):
    """Start a worker of a user's app: ``shop(source, *arguments, **configuration)``."""

    def start(source, *arguments, wait=True, **more):
        text = source.format(broker=broker.url, url=collector.url, more=more)
        (tmp_path / "shop.py").write_text(text)
        worker = make_worker(broker.url, *CONSUME, *arguments, app="shop", start=False)
        return worker.start(wait=wait)

    with celery_app(broker.url):
        yield start


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_the_task_runs_on_every_pool(shop, broker, collector, pool):
    """Delivered, retried and kept as by the standalone worker; the user's tasks run beside it."""
    worker = shop(SHOP, "-P", pool)
    collector.choose = lambda _m, _t, body: Answer(400) if b"u-bad" in body else None
    collector.script(503)
    for uuid in ("u-1", "u-2", "u-bad"):
        dispatch(US_URL, params_of(uuid=uuid))

    eventually(lambda: len(collector.received) == 4)
    eventually(lambda: _is_empty(broker))
    assert sum(r.answer.status == 204 for r in collector.received) == 2
    assert broker.client().zcard("optly_celery:dead-letters:times") == 1
    with celery_app(broker.url) as app:
        app.send_task("shop.ship", ["order-1"])
    eventually(lambda: "shipped order-1" in worker.output())


def test_the_task_is_found_by_autodiscovery(shop, broker, collector):
    """As in a Django project: settings with a namespace, tasks found by the name of the app."""
    worker = shop(DJANGO_LIKE)
    collector.script(503)
    dispatch(US_URL, params_of())

    eventually(lambda: len(collector.received) == 2)
    eventually(lambda: _is_empty(broker))
    assert "concurrency: 2 (prefork)" in worker.output()


@pytest.mark.parametrize(
    ("pool", "limit"),
    [
        ("prefork", "task_time_limit"),
        ("prefork", "task_soft_time_limit"),
        ("gevent", "task_time_limit"),
    ],
)
def test_a_users_time_limit_costs_no_event(shop, broker, collector, pool, limit):
    """A limit that hits in the middle of a POST ends the attempt, not the event."""
    worker = shop(SHOP, "-P", pool, **{limit: 1})
    collector.script(Answer(204, {}, 4.0))
    dispatch(US_URL, params_of())

    eventually(lambda: len(collector.received) == 2)
    eventually(lambda: _is_empty(broker))
    assert worker.process.poll() is None
    assert "succeeded" in worker.output()


def test_a_users_worker_refuses_wrong_settings_too(shop):
    """A sentence that names the key, and the exit code for a wrong configuration."""
    worker = shop(SHOP, wait=False, optly_quue="x")

    assert worker.process.wait(30) == 78
    assert "optly_quue is no setting of optly_celery" in worker.output()


def _is_empty(broker):
    client = broker.client()
    return not client.llen("optimizely") and not client.hlen("unacked")
