"""A small Django site in this process, for the tests of ``optly_celery.contrib.django``.

Importing this configures Django; the fixtures are for test modules to import.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.test.utils import setup_test_environment

DATAFILE = resources.files("optly_celery.demo").joinpath("datafile.json").read_text("utf-8")
FLAG, CONVERSION = "new_checkout", "purchase"
_HOME = Path(tempfile.mkdtemp(prefix="optly-django-"))

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for tests",  # noqa: S106
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF="tests.contrib.django_urls",
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": _HOME / f"{alias}.sqlite3"}
            for alias in ("default", "orders")
        },
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "optly_celery.contrib.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "optly_celery.contrib.django.middleware.OptimizelyMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STATIC_URL="/static/",
        OPTIMIZELY={"datafile": DATAFILE},
    )
    django.setup()
    setup_test_environment()


class Recorder:
    """A dispatcher that keeps what it is given."""

    events: list[Any] = []  # noqa: RUF012 - the SDK is given the class

    @classmethod
    def dispatch_event(cls, event: Any) -> None:
        cls.events.append(event)

    @classmethod
    def keys(cls) -> list[str]:
        """The key of each event, in order; ``campaign_activated`` is an impression's."""
        return [
            item["key"]
            for event in cls.events
            for visitor in event.params["visitors"]
            for snapshot in visitor["snapshots"]
            for item in snapshot["events"]
        ]

    @classmethod
    def visitors(cls) -> list[str]:
        return [v["visitor_id"] for event in cls.events for v in event.params["visitors"]]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(Recorder, "events", [])
    return Recorder


@pytest.fixture(scope="session")
def _migrated() -> None:
    from django.core.management import call_command

    for alias in settings.DATABASES:
        call_command("migrate", database=alias, verbosity=0)


@pytest.fixture
def database(_migrated: None) -> Iterator[None]:
    """Both databases, with their tables; without accounts, and closed, afterwards."""
    from django.contrib.auth.models import User
    from django.db import connections

    yield
    User.objects.all().delete()
    connections.close_all()


def optimizely(**options: Any) -> Any:
    """``override_settings`` with these options, and a client that records its events."""
    from django.test import override_settings

    given = {"datafile": DATAFILE, "event_dispatcher": f"{__name__}.made_recorder", **options}
    return override_settings(OPTIMIZELY=given)


def made_recorder() -> type[Recorder]:
    """What the dotted path above names: it returns the dispatcher."""
    return Recorder
