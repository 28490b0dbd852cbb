"""``manage.py optimizely`` has the commands of the command line, for the project's Celery app."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from optly_celery.cli import optimizely as commands

from ..support import free_port
from . import django_site  # noqa: F401 - configures Django

SETTINGS = """
from pathlib import Path
SECRET_KEY = "only for tests"
INSTALLED_APPS = ["optly_celery.contrib.django"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3",
                           "NAME": Path(__file__).parent / "db.sqlite3"}}}}
USE_TZ = True
OPTIMIZELY = {{"sdk_key": "key-of-tests", "on_commit": True}}
CELERY_BROKER_URL = {broker!r}
CELERY_OPTLY_DELIVERY = "outbox"
"""
CELERY = """
from celery import Celery
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
# What ``django.setup()`` does to the outside, seen by an audit hook.
SETUP_QUIETLY = """
import os, sys, threading
sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
seen = []
loud = {"socket.connect", "socket.listen", "socket.sendto", "socket.getaddrinfo", "os.fork",
        "subprocess.Popen", "_thread.start_new_thread", "sqlite3.connect", "os.mkdir"}
sys.addaudithook(lambda name, args: seen.append(name) if name in loud else None)
files = len(os.listdir("/dev/fd"))
import django
django.setup()
from optly_celery.contrib.django import client
from optly_celery.contrib.django.middleware import OptimizelyMiddleware
opened = len(os.listdir("/dev/fd")) - files
sys.stdout.write(repr((seen, threading.active_count(), opened, sorted(sys.modules))))
"""


@pytest.fixture
def project(tmp_path):
    """A project on disk, with its Celery app as Celery's guide for Django has it."""

    def make(broker_url):
        package = tmp_path / "shop"
        package.mkdir()
        (package / "settings.py").write_text(SETTINGS.format(broker=broker_url))
        (package / "celery.py").write_text(CELERY)
        (package / "__init__.py").write_text(
            "from .celery import app as celery_app\n__all__ = ['celery_app']\n"
        )
        return tmp_path

    return make


def manage(directory, *arguments):
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_it_has_the_same_commands(project, broker):
    """No command of the package's own command line is missing from ``manage.py optimizely``."""
    done = manage(project(broker.url), "optimizely", "--help")

    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in commands.commands)


def test_it_speaks_of_the_projects_broker_and_exits_as_the_command_does(project, broker):
    """No worker runs, so the status is 1; Django's own options are taken out."""
    done = manage(project(broker.url), "optimizely", "status", "--json", "--settings=shop.settings")

    assert json.loads(done.stdout)["broker"].endswith(f"127.0.0.1:{broker.port}/0")
    assert done.returncode == 1, done.stderr


def test_an_unreachable_broker_is_a_sentence_and_a_code_of_its_own(project):
    """A script can tell it from other failures, and nobody is shown a traceback."""
    done = manage(project(f"redis://127.0.0.1:{free_port()}/0"), "optimizely", "status")

    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_call_command_returns_what_was_printed(app):
    """``stdout`` is honoured, so a project's own code can read the JSON."""
    printed = StringIO()
    call_command("optimizely", "dead-letters", "list", "--json", stdout=printed)

    assert json.loads(printed.getvalue()) == []


def test_call_command_raises_what_failed(app):
    """A pipeline in trouble cannot pass for a healthy one, and the exit code is not lost."""
    with pytest.raises(CommandError) as caught:
        call_command("optimizely", "status", stdout=StringIO(), stderr=StringIO())

    assert caught.value.returncode == 1


def test_setting_django_up_opens_no_connection_file_or_thread(project):
    """Nor does importing the client and the middleware; the SDK itself is not even imported."""
    directory = project(f"redis://127.0.0.1:{free_port()}/0")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SETUP_QUIETLY],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    seen, threads, opened, modules = eval(done.stdout)  # noqa: S307 - our own repr

    assert (seen, threads, opened) == ([], 1, 0)
    assert not {"optimizely", "optly_celery.cli", "optly_celery.tasks"} & set(modules)


def test_checks_at_start_open_no_connection(project):
    """With a broker that is not there."""
    done = manage(project(f"redis://127.0.0.1:{free_port()}/0"), "check")

    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_the_model_without_a_table_needs_no_migration(project):
    """A site that runs ``makemigrations --check`` in its CI stays green, and gets no table."""
    directory = project(f"redis://127.0.0.1:{free_port()}/0")
    done = manage(directory, "makemigrations", "--check", "--dry-run")
    made = manage(directory, "migrate", "--run-syncdb")

    assert done.returncode == 0, done.stdout + done.stderr
    assert made.returncode == 0, made.stderr
    with contextlib.closing(sqlite3.connect(directory / "shop" / "db.sqlite3")) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
    assert not [name for (name,) in tables if "deadletter" in name]


def test_autodiscovery_finds_the_task(project, broker):
    """A project's own worker can deliver without importing anything of the package by hand."""
    directory = project(broker.url)
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "shop.settings"}
    script = (
        "from shop import celery_app as app; app.loader.import_default_modules(); "
        "print('optly_celery.deliver' in app.tasks)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, env=env, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    assert done.stdout == "True\n"
