"""The matrix: tests that matter, against SDK and Celery versions other than the newest.

``make test`` runs everything against the newest; ``make test-sdks`` (``nox --tags ci``) runs each
SDK, the oldest of all else, and Python 3.13; ``make test-matrix`` (``nox``) runs this whole. A
Python that is not there is left out.
"""

from __future__ import annotations

import os
import sys

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "gevent")

# No kombu is named: pip picks it. But kombu's own extra is asked for: beside "celery[redis]==5.4.*"
# alone pip puts kombu 5.7 and, as Celery 5.4 wants it, redis-py 5, which that kombu refuses.
CELERIES = ("5.4", "5.5", "5.6", "5.7")
# A lock file of old may hold an old kombu as well.
OLDEST = ("celery[redis]==5.4.*", "kombu==5.4.*")

WORKERS = str(2 * (os.cpu_count() or 1))  # as in the Makefile, for the same reason

PYTEST = ("python", "-m", "pytest", "-W", "ignore::DeprecationWarning", "-m", "not slow")
WORKER_TESTS = (
    "tests/upstream", "tests/unit/worker",
    "tests/integration/test_redis_transport.py",
    "tests/integration/test_monitoring.py", "tests/integration/test_worker.py",
    "tests/faults/test_worker_faults.py",
)  # fmt: skip
CELERY_TESTS = (
    *WORKER_TESTS,
    "tests/unit/enqueue", "tests/unit/deliver",
    "tests/integration/test_pipeline.py", "tests/integration/test_dispatcher.py",
    "tests/integration/test_user_app.py",
    "tests/faults/test_retry_publish.py",
)  # fmt: skip


@nox.session(tags=["ci"])
@nox.parametrize("version", ["3.10.0", "4.1.1", "5.7.0"])
def sdk(session: nox.Session, version: str) -> None:
    """The real SDK of three major versions, a real worker, a strict endpoint."""
    session.install("-e", ".[embedded,flask]", f"optimizely-sdk=={version}", *TOOLS)
    session.run(
        *PYTEST,
        "tests/integration/test_sdk.py", "tests/unit/testing", "tests/contrib/test_flask.py",
        "tests/integration/test_event_processor.py",
        *session.posargs,
    )  # fmt: skip


@nox.session
@nox.parametrize("version", CELERIES)
def celery(session: nox.Session, version: str) -> None:
    """Dispatcher, worker, retries and monitoring events on each Celery."""
    session.install(
        "-e", ".[embedded]", f"celery[redis]=={version}.*", "kombu[redis]",
        "optimizely-sdk>=5", "jsonschema", *TOOLS,
    )  # fmt: skip
    session.run("python", "-m", "pip", "list")
    session.run(*PYTEST, "-n", WORKERS, *CELERY_TESTS, *session.posargs)


@nox.session
def upstream(session: nox.Session) -> None:
    """What comes next: Celery, kombu and billiard before they are released, and what we borrow."""
    session.install("-e", ".[embedded,django,flask]", "optimizely-sdk>=5", "jsonschema", *TOOLS)
    session.install("--pre", "--upgrade", "celery[redis]", "kombu", "billiard")
    session.run("python", "-m", "pip", "list")
    session.run(*PYTEST, "-n", WORKERS, *WORKER_TESTS, *session.posargs)


@nox.session(tags=["ci"])
def oldest(session: nox.Session) -> None:
    """The oldest Celery, Flask and Django that are supported, together."""
    session.install("-e", ".[demo]", "flask==2.3.*", "werkzeug<3", "django==4.2.*", *TOOLS)
    session.install(*OLDEST)
    session.run(*PYTEST, "-n", WORKERS, *CELERY_TESTS, "tests/contrib", *session.posargs)


@nox.session
@nox.parametrize("python", ["3.12", nox.param("3.13", tags=["ci"]), "3.14"])
def python(session: nox.Session) -> None:
    """What differs between Pythons: threads, forks, exits, files left open."""
    session.install("-e", ".[dev]")
    session.run(
        *PYTEST, "-n", WORKERS,
        "tests/unit", "tests/servers", "tests/integration/test_fork_safety.py",
        "tests/integration/test_client.py", *session.posargs,
    )  # fmt: skip


@nox.session
@nox.parametrize("version", ["2.3", "3.0", "3.1"])
def flask(session: nox.Session, version: str) -> None:
    """The extension and the example on every Flask that is supported."""
    werkzeug = "werkzeug<3" if version == "2.3" else "werkzeug>=3"
    session.install("-e", ".[demo]", f"flask=={version}.*", werkzeug, *TOOLS)
    session.run(
        *PYTEST,
        "tests/contrib/test_flask.py", "tests/examples/test_flask_shop.py", *session.posargs,
    )  # fmt: skip


@nox.session
@nox.parametrize("version", ["4.2", "5.2", "6.0", "6.1"])
def django(session: nox.Session, version: str) -> None:
    """The app and the example on every Django that is supported."""
    if version.startswith("6") and sys.version_info < (3, 12):
        session.skip(f"Django {version} needs Python 3.12")
    session.install("-e", ".[demo]", f"django=={version}.*", *TOOLS)
    session.run(
        *PYTEST,
        "tests/contrib", "--ignore=tests/contrib/test_flask.py",
        "tests/examples/test_django_shop.py", *session.posargs,
    )  # fmt: skip
