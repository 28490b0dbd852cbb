"""``outbox drain``: what a dead process left is published by a person's command."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from optly_celery import dispatch, stats
from optly_celery.cli import main
from optly_celery.enqueue.claims import files_in
from optly_celery.runtime import process as runtime

from ..support import US_URL, params_of


@pytest.fixture
def environment(own_broker, monkeypatch, tmp_path):
    """The standalone app, on a broker and a directory of this test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTLY_BROKER_URL", own_broker.url)
    monkeypatch.setenv("OPTLY_OUTBOX_DIR", str(tmp_path / "outbox"))
    monkeypatch.setenv("OPTLY_DELIVERY", "outbox")
    return own_broker


def leave_behind(broker, events):
    """What a process leaves that ends while the broker is away."""
    broker.stop()
    for number in range(events):
        dispatch(US_URL, params_of(f"v-{number}", f"u-{number}"))
    assert stats()["stored"] == events
    assert runtime.close(0.1) is False
    broker.start()


def test_what_was_left_behind_is_published(environment, tmp_path):
    """Every event, and the file goes."""
    leave_behind(environment, 250)

    ran = CliRunner().invoke(main, ["outbox", "drain", "--json"])

    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert (found["events"], found["files"], found["done"]) == (250, 1, True)
    assert environment.client().llen("optimizely") == 3
    assert [p for d in (tmp_path / "outbox").iterdir() for p in files_in(d)] == []


def test_a_broker_that_is_away_is_said_and_nothing_is_lost(environment, tmp_path):
    """A sentence, an exit code of its own, and the file stays."""
    leave_behind(environment, 5)
    environment.stop()

    ran = CliRunner().invoke(main, ["outbox", "drain"])

    assert ran.exit_code == 3, ran.output
    assert "what is left stays in its files" in ran.stderr
    assert len([p for d in (tmp_path / "outbox").iterdir() for p in files_in(d)]) == 1


def test_a_directory_that_cannot_be_used_is_said(environment, monkeypatch):
    """With the setting's name, and without a traceback."""
    monkeypatch.setenv("OPTLY_OUTBOX_DIR", "/dev/null")

    ran = CliRunner().invoke(main, ["outbox", "drain"])

    assert ran.exit_code == 78, ran.output
    assert "the outbox directory cannot be used" in ran.output
