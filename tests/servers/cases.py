"""The servers, and with which flags each is started."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

_RECYCLE = 40  # requests of one process, about: 500 of them take a dozen processes
_BIN = Path(sys.executable).parent
_GRACEFULLY = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")


@dataclass(frozen=True)
class Case:
    """One way of serving the shop.

    ``flags`` is how a person would write it. ``paths`` are what visits are asked under in turn;
    none where they come through Celery's broker. A ``one_shot`` program makes its visits by
    itself and ends. ``recycles`` where the server replaces its processes. ``max_requests`` where
    uWSGI does so, whose ``{stats}`` tell when it has done.
    """

    name: str
    command: tuple[str, ...]
    flags: str
    paths: tuple[str, ...] = ("/",)
    one_shot: bool = False
    recycles: bool = True
    slow: bool = False
    max_requests: int = 0
    exit_code: int = 0


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _gunicorn(worker: str, *, preload: bool) -> Case:
    flags = (("--threads", "4") if worker == "gthread" else ()) + (
        ("--preload",) if preload else ()
    )
    command = _python(
        "gunicorn", "tests.servers.wsgi:application", "-b", "127.0.0.1:{port}", "-w", "4",
        "-k", worker, "--max-requests", str(_RECYCLE), "--max-requests-jitter", "10", *flags,
    )  # fmt: skip
    name = f"gunicorn {worker}" + (" preload" if preload else "")
    slow = not preload or worker == "gevent"
    return Case(name, command, " ".join(("-k", worker, *flags)), slow=slow)


def _uwsgi(
    name: str, *flags: str, stop: tuple[str, ...] = ("--die-on-term",), slow: bool = False
) -> Case:
    command = (
        str(_BIN / "uwsgi"), "--http-socket", "127.0.0.1:{port}", "--module", "tests.servers.wsgi",
        "--need-app", "--master", "--processes", "4", "--max-requests", str(_RECYCLE),
        # At once, and not after 10 s, as by default. The master would sleep for 2 s now and then
        # where so many are replaced, and forget to stop the worker that it starts after a SIGTERM.
        "--min-worker-lifetime", "0", "--forkbomb-delay", "0",
        "--worker-reload-mercy", "30", "--disable-logging", "--stats", "127.0.0.1:{stats}",
        *stop, *flags,
    )  # fmt: skip
    return Case(name, command, " ".join(flags), slow=slow, max_requests=_RECYCLE)


def _uvicorn(workers: int, application: str) -> Case:
    command = _python(
        "uvicorn", f"tests.servers.asgi:{application}", "--port", "{port}", "--no-access-log",
        "--workers", str(workers),
        *(("--limit-max-requests", str(_RECYCLE)) if workers > 1 else ()),
    )  # fmt: skip
    name = f"uvicorn, {workers} workers" if workers > 1 else "uvicorn"
    return Case(
        name if application == "application" else f"{name}, {application}",
        command,
        f"--workers {workers}",
        paths=("/sync/", "/async/"),
        recycles=workers > 1,
        slow=workers > 1,
        exit_code=0 if workers > 1 else -signal.SIGTERM,
    )


def _celery(pool: str, *flags: str, recycles: bool) -> Case:
    command = _python(
        "celery", "-A", "tests.servers.tasks", "worker", "-P", pool, *flags,
        "--without-mingle", "--without-gossip",
    )  # fmt: skip
    return Case(f"celery {pool}", command, " ".join(flags), paths=(), recycles=recycles)


def _pool(method: str) -> Case:
    command = _python("tests.servers.pool", method)
    return Case(f"multiprocessing {method}", command, method, one_shot=True, slow=method == "spawn")


SERVERS = (
    *(_gunicorn(w, preload=p) for w in ("sync", "gthread", "gevent") for p in (False, True)),
    _uwsgi("uwsgi"),
    _uwsgi("uwsgi enable-threads", "--enable-threads"),
    _uwsgi("uwsgi threads", "--threads", "2", stop=_GRACEFULLY),
    _uwsgi("uwsgi lazy-apps", "--lazy-apps", slow=True),
    _uwsgi("uwsgi enable-threads lazy-apps", "--enable-threads", "--lazy-apps", slow=True),
    _celery("prefork", "-c", "4", "--max-tasks-per-child", str(_RECYCLE), recycles=True),
    _celery("gevent", "-c", "50", recycles=False),
    _pool("fork"),
    _pool("spawn"),
    _uvicorn(1, "closing"),
    _uvicorn(4, "closing"),
)
"""Those that let exit hooks run when they are stopped, or have `close` called instead."""

ENDING = replace(
    _uwsgi(
        "uwsgi ending", "--enable-threads", "--module", "tests.servers.ending",
        "--processes", "1", "--max-requests", "5",
    ),
    max_requests=5, recycles=False,
)  # fmt: skip
"""One process at a time, which ends when it has served a few, and not before it is let go."""

HOOKLESS = (_uvicorn(1, "application"), _uvicorn(4, "application"))
"""Those that end by a signal in the end."""

CASES = (*SERVERS, *HOOKLESS)
