"""What this process holds: a runtime for each Celery app, counters, hooks for fork and exit.

A forked child builds its own: sockets, sessions and counters are not shared with its parent.
"""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import celery
from celery import signals

from ..enqueue.store import Store
from ..host.uwsgi import exit_undisturbed, exit_undisturbed_from_the_start
from .counters import Counters
from .runtime import Runtime

_runtimes: dict[celery.Celery, Runtime] = {}
_inherited: list[object] = []
_at_exit: dict[Callable[[], object], None] = {}
_counters = Counters()
_exit_hook_set = False
_pid = os.getpid()
_resetting = threading.Lock()


def runtime_of(app: Any) -> Runtime:
    """What this process holds for an app."""
    _reset_after_fork()
    found = _runtimes.get(app)
    if found is None:
        app = getattr(app, "_get_current_object", lambda: app)()
        # Two threads at once may build two; the one that is kept is the one that both return.
        made = Runtime(app, counters=counters, on_store=_close_at_exit)
        found = _runtimes.setdefault(app, made)
    return found


def counters() -> Counters:
    """This process's counters."""
    _reset_after_fork()
    return _counters


def stats() -> dict[str, Any]:
    """What became of the events of this process since it started, or was forked.

    ``accepted`` = ``published`` + ``stored`` + the sum of ``dropped``, which is by reason, at any
    time at which no dispatch is under way. ``refused``, by reason, is what was no event.
    ``relayed`` is what has left an outbox for the broker; ``outbox`` tells what waits in this
    process's: rows, bytes, and the age of the oldest in seconds.
    """
    waiting = {"rows": 0, "bytes": 0, "oldest_age_s": 0.0}
    for store in _stores():
        waiting = store.waiting()
    return {**_counters.as_dict(), "outbox": waiting}


def flush(timeout: float = 5.0) -> bool:
    """Have what waits in this process's outbox published, within so many seconds.

    Returns whether nothing is left. What is left stays in the outbox and goes on being relayed.
    """
    deadline = time.monotonic() + timeout
    done = True
    for store in _stores():
        done = store.relay.flush(max(0.0, deadline - time.monotonic())) and done
    return done


def close(timeout: float = 5.0) -> bool:
    """Flush, then free what this process holds: threads, files, connections.

    Returns whether nothing is left in the outbox. What is left is relayed by the next process
    that uses its directory. A dispatch after this starts anew. Called at exit, with 5 seconds.
    """
    deadline = time.monotonic() + timeout
    done = True
    _reset_after_fork()
    for runtime in list(_runtimes.values()):
        store = runtime.opened_store
        if store is not None:
            done = store.close(max(0.0, deadline - time.monotonic())) and done
        if "publisher" in runtime.__dict__:
            runtime.publisher.close()
        if "transport" in runtime.__dict__:
            runtime.transport.close()
    _runtimes.clear()
    return done


def at_exit(call: Callable[[], object]) -> None:
    """Have this called once when this process exits, before `close`; not in a forked child."""
    _reset_after_fork()
    _at_exit.setdefault(call)
    _close_at_exit()


def _stores() -> list[Store]:
    _reset_after_fork()
    return [s for r in list(_runtimes.values()) if (s := r.opened_store) is not None]


def _close_at_exit() -> None:
    global _exit_hook_set
    if not _exit_hook_set:
        _exit_hook_set = True
        atexit.register(_exit)
        exit_undisturbed_from_the_start()
        # Children of multiprocessing and of Celery's prefork pool end without atexit.
        multiprocessing.util.Finalize(None, _exit, exitpriority=10)
        signals.worker_process_shutdown.connect(_exit, weak=False)


def _exit(**_: Any) -> None:
    exit_undisturbed()
    _reset_after_fork()
    while _at_exit:
        _at_exit.popitem()[0]()
    close()


def _reset_after_fork() -> None:
    """Look whether this process is still the one; uWSGI forks without `os.register_at_fork`."""
    if _pid != os.getpid():
        with _resetting:
            if _pid != os.getpid():
                _forget()


def _forget() -> None:
    global _runtimes, _counters, _exit_hook_set, _at_exit, _pid
    # Kept, not closed: closing would say goodbye on connections that are still the parent's.
    _inherited.append(_runtimes)
    _runtimes, _counters, _exit_hook_set, _at_exit = {}, Counters(), False, {}
    _pid = os.getpid()  # last: until then other threads wait
