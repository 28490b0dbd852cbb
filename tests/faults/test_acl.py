"""The users of docs/operations.md are allowed what they need, and nothing is refused to them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from optly_celery import dispatch, flush
from optly_celery.testing.server import Answer

from ..commands import invoke
from ..conftest import celery_app
from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line
from ..support import US_URL, eventually, params_of

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
USERS = {
    line.split()[2]: shlex.split(line)
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("ACL SETUSER")
}


@pytest.fixture
def line(tmp_path):
    with Line(tmp_path, config=IMPATIENT, pause_after=2, **IMPATIENT_SETTINGS) as made:
        for words in USERS.values():
            made.broker.client().execute_command(*words)
        yield made


def url_of(line, user):
    return line.broker.url.replace("//", f"//{user}:{user}-password@")


def refused(line):
    """What Redis has refused to whom."""
    log = line.broker.client().execute_command("ACL LOG")
    return [(entry["username"], entry["reason"], entry["object"]) for entry in log]


def test_there_is_a_user_for_each_part():
    """The app, the worker and the person."""
    assert USERS.keys() == {"app", "worker", "operator"}


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_the_documented_users_can_do_all_that_they_do(line, tmp_path, pool):
    """Dispatch in both modes, deliver, pause, park, keep, sweep, status, replay and purge."""
    outbox = {"optly_delivery": "outbox", "optly_outbox_dir": str(tmp_path / "outbox")}
    for n, options in enumerate([{}, outbox]):
        with celery_app(url_of(line, "app"), **options):
            dispatch(US_URL, params_of(uuid=f"u-{n}"))
            flush(20)
    worker = line.work("-c", "2", pool=pool, broker_url=url_of(line, "worker"))
    line.all_delivered(["u-0", "u-1"])

    line.collector.choose = lambda *_: Answer(503)
    line.dispatch(["p-0", "p-1", "p-2", "p-3"])
    line.dispatch(["other"], url="https://eu.logx.optimizely.com/v1/events")
    eventually(lambda: "paused" in worker.output(), what=lambda: str(refused(line)))
    line.collector.choose = lambda *_: Answer(400)
    eventually(lambda: len(line.dead.ids()) == 5)
    client = line.broker.client()
    client.lpush("optimizely", "no message")
    line.collector.choose = None
    eventually(lambda: len(line.dead.ids()) == 6)

    with celery_app(url_of(line, "operator")) as app:
        shown = invoke("status", app=app)
        assert "1 worker" in shown.stdout or worker.process.poll() is None
        assert invoke("dead-letters", "list", app=app).exit_code == 0
        letter = next(line.dead.list())
        assert invoke("dead-letters", "show", letter.id, app=app).exit_code == 0
        replayed = invoke("dead-letters", "replay", "--status", "400", "--yes", app=app)
        assert replayed.exit_code == 0, replayed.output
        client.zadd("optly_celery:dead-letters:times", {"nothing else of it": 1})
        assert invoke("dead-letters", "purge", "--all", "--yes", app=app).exit_code == 0
    line.all_delivered(["p-0", "p-1", "p-2", "p-3", "other"])
    worker.kill()
    line.dispatch(["last"])
    again = line.work("-c", "2", pool=pool, broker_url=url_of(line, "worker"))
    line.all_delivered(["last"])
    again.stop()

    assert refused(line) == []
