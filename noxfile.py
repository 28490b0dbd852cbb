"""The matrix: tests that matter, against SDK and Celery versions other than the newest.

``make test`` runs everything against the newest; ``nox`` (``make test-sdks``) runs this.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "gevent")

# Each Celery with the newest kombu that its own requirements and its redis-py go together with.
CELERIES = {
    "5.4": ("celery[redis]==5.4.*", "kombu==5.4.*"),
    "5.5": ("celery[redis]==5.5.*", "kombu==5.5.*"),
    "5.6": ("celery[redis]==5.6.*", "kombu==5.6.*"),
}


@nox.session
@nox.parametrize("version", ["3.10.0", "4.1.1", "5.7.0"])
def sdk(session: nox.Session, version: str) -> None:
    """The real SDK of three major versions, a real worker, a strict endpoint."""
    session.install("-e", ".[embedded]", f"optimizely-sdk=={version}", *TOOLS)
    session.run("python", "-m", "pytest", "tests/integration/test_sdk.py", *session.posargs)


@nox.session
@nox.parametrize("version", list(CELERIES))
def celery(session: nox.Session, version: str) -> None:
    """Dispatcher, worker and retries on older Celery.

    Without test_worker.py, which watches monitoring events: before 5.7 the threads pool loses some
    of them (celery/celery#10434).
    """
    session.install("-e", ".[embedded]", "optimizely-sdk>=5", "jsonschema", *TOOLS)
    session.install(*CELERIES[version])
    session.run(
        "python", "-m", "pytest", "-n", "4", "-W", "ignore::DeprecationWarning",
        "tests/unit/enqueue", "tests/unit/deliver",
        "tests/integration/test_pipeline.py", "tests/integration/test_dispatcher.py",
        "tests/integration/test_user_app.py",
        "tests/faults/test_retry_publish.py", "tests/faults/test_worker_faults.py",
        *session.posargs,
    )  # fmt: skip
