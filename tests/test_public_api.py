"""The public door: what it offers, and that opening it does nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest

import optly_celery

# Run in a process of its own, whose audit hook sees what is done to the outside.
IMPORT_QUIETLY = """
import os, sys, threading
seen = []
loud = {"socket.connect", "socket.listen", "socket.sendto", "socket.getaddrinfo", "os.fork",
        "subprocess.Popen", "_thread.start_new_thread"}
sys.addaudithook(lambda name, args: seen.append(name) if name in loud else None)
files = len(os.listdir("/dev/fd"))
import optly_celery
opened = len(os.listdir("/dev/fd")) - files
sys.stdout.write(repr((seen, threading.active_count(), opened, sorted(sys.modules))))
"""


def test_all_is_what_is_there():
    """Each name of ``__all__`` exists, and nothing public is missing from it."""
    there = {
        name
        for name in dir(optly_celery)
        if not name.startswith("_")
        and not isinstance(getattr(optly_celery, name), types.ModuleType)
    }

    assert there | {"__version__"} == set(optly_celery.__all__)
    assert optly_celery.__all__ == sorted(optly_celery.__all__)


@pytest.mark.parametrize("name", optly_celery.__all__)
def test_every_public_name_is_documented(name):
    """``help`` has an answer."""
    value = getattr(optly_celery, name)

    assert isinstance(value, str) or value.__doc__


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("celery", "app"),
        ("celeryconfig", "broker_url"),
        ("consumer.redis_transport", "Channel"),
        ("consumer.redis_transport", "SentinelTransport"),
        ("consumer.redis_transport", "Transport"),
        ("contrib.flask", "Optimizely"),
        ("contrib.flask_commands", "Commands"),
        ("demo.stand_in", "main"),
        ("event_dispatcher", "EventDispatcher"),
        ("event_dispatcher", "dispatch_event"),
        ("settings", "Settings"),
        ("signals", "dropped"),
        ("tasks", "deliver"),
        ("testing", "Collector"),
    ],
)
def test_a_path_that_users_import_from_stays(module, name):
    """Whatever is moved behind it: settings, docs and code of users name these."""
    assert hasattr(importlib.import_module(f"optly_celery.{module}"), name)


def test_importing_the_package_does_nothing_but_import():
    """No connection, thread, process or file left open."""
    seen, threads, opened, _ = _import_quietly()

    assert (seen, threads, opened) == ([], 1, 0)


def test_importing_the_package_loads_only_what_an_app_needs():
    """No web framework, no SDK; and no task, since the publisher sends by name."""
    modules = set(_import_quietly()[-1])
    # Where Django is installed, kombu looks for its lazy text, which loads nothing else.
    django = {m for m in modules if m.startswith("django.") and not m.startswith("django.utils")}

    assert not {"flask", "optimizely", "flower"} & modules
    assert not django
    assert not {f"optly_celery.{name}" for name in ("tasks", "celery", "demo", "cli")} & modules


def _import_quietly():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_QUIETLY],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    return eval(done.stdout)  # noqa: S307 - our own repr
