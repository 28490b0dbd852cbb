"""The ways to the commands, as processes: ``celery -A … optimizely`` and ``optly-celery``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..letters import keep, published_uuids, store
from ..support import free_port

BIN = Path(sys.executable).parent
PROJECT = """
from celery import Celery, signals
from click import Option

app = Celery("shop", broker={url!r})
app.conf.optly_queue = "shop-events"
app.user_options["preload"].add(Option(["-Z", "--zone"], default="none"))

@signals.user_preload_options.connect
def tell(options, **_):
    print("zone is", options["zone"])
"""
WAYS = {
    "celery": ["celery", "-A", "{app}", "optimizely"],
    "optly-celery": ["optly-celery", "-A", "{app}"],
    "python -m": [Path(sys.executable).name, "-m", "optly_celery", "-A", "{app}"],
}


def run(way, *arguments, app, cwd, **env):
    """The outcome of a command that was started by one of the ways."""
    name, *rest = [part.format(app=app) for part in WAYS[way]]
    return _start([BIN / name, *rest, *arguments], cwd, env)


@pytest.fixture
def project(tmp_path, broker):
    (tmp_path / "shop.py").write_text(PROJECT.format(url=broker.url))
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_every_way_leads_to_the_standalone_app(way, broker, tmp_path):
    """Configured by the environment, in any directory."""
    keep(store(broker), 1)

    done = run(way, "status", "--json", "--timeout", "0.2", app="optly_celery", cwd=tmp_path,
               OPTLY_BROKER_URL=broker.url)  # fmt: skip

    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["queue"], found["dead_letters"]) == ("optimizely", 1)
    assert "no worker answers" in found["verdict"]
    assert done.stderr == ""


@pytest.mark.parametrize("way", WAYS)
def test_every_way_takes_a_projects_own_app(way, broker, project):
    """Found from the working directory, with its own settings."""
    keep(store(broker), 1)

    done = run(way, "dead-letters", "replay", "--all", "--yes", app="shop", cwd=project)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 dead letter replayed.\n")
    assert list(published_uuids(broker, "shop-events")) == ["uuid-1"]


def test_options_that_a_project_adds_to_all_commands_are_taken(broker, project):
    """Celery hands them to plug-ins as well."""
    done = _start(
        [BIN / "celery", "-A", "shop", "optimizely", "-Z", "north", "dead-letters", "list"], project
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "zone is north\n"


def test_without_an_app_the_standalone_one_is_meant(broker, tmp_path):
    """It reads celeryconfig.py in the working directory, and the environment."""
    (tmp_path / "celeryconfig.py").write_text(f"broker_url = {broker.url!r}\n")

    for command in (["optly-celery"], ["celery", "optimizely"]):
        done = _start(
            [BIN / command[0], *command[1:], "status", "--json", "--timeout", "0.2"],
            tmp_path,
            {"OPTLY_QUEUE": "mine"},
        )
        assert json.loads(done.stdout)["queue"] == "mine", done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_broker_that_is_away_is_no_traceback(way, tmp_path):
    """One sentence, whichever way."""
    done = run(way, "status", app="optly_celery", cwd=tmp_path,
               OPTLY_BROKER_URL=f"redis://:secret@127.0.0.1:{free_port()}/0")  # fmt: skip

    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_setting_is_no_traceback(way, tmp_path):
    """The exit code is the worker's for the same."""
    done = run(way, "status", app="optly_celery", cwd=tmp_path, OPTLY_MAX_RETRY="3")

    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert "is no setting of optly_celery" in done.stderr


def _start(command, cwd, env=None):
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True,
        timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
