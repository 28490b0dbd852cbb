"""What is different inside a uWSGI worker; the server puts a module ``uwsgi`` into it."""

from __future__ import annotations

import contextlib
import signal
import sys


def threads_run() -> bool:
    """False in a worker without --enable-threads, where no background thread ever runs."""
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is None or bool(uwsgi.opt.get("enable-threads") or uwsgi.opt.get("threads"))


def exit_undisturbed() -> None:
    """Let exit hooks come to their end, within the server's mercy.

    A worker that has served its --max-requests is ending when the server is told to stop or to
    reload, and is then signalled like the rest. Its handler leaves at once, in the middle of what
    runs. A sibling that is just being started, or a supervisor, may signal it once more.
    """
    if "uwsgi" in sys.modules:
        with contextlib.suppress(ValueError):  # only the main thread may
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
                signal.signal(number, signal.SIG_IGN)


def exit_undisturbed_from_the_start() -> None:
    """Have the above called before any other exit hook, and before threads are waited for."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None:
        theirs = getattr(uwsgi, "atexit", None)

        def begin() -> None:
            exit_undisturbed()
            if theirs is not None:
                theirs()

        uwsgi.atexit = begin  # type: ignore[attr-defined]
