"""The collaborators of this process, built on first use from a Celery app's configuration.

A forked child builds its own: sockets, sessions and counters are not shared with its parent.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import os
import time
from functools import cached_property
from typing import Any

import celery
from celery import signals

from .deliver.dead_letters import DeadLetters
from .deliver.retry import RetryPolicy
from .deliver.transport import Transport
from .enqueue.publisher import Publisher
from .enqueue.store import Store, directory_for
from .errors import OutboxError, SettingsError
from .settings import Settings
from .tally import Tally
from .version import __version__

logger = logging.getLogger(__name__)

_RELAY_TIMEOUT_S = 5.0


class Runtime:
    """What one process needs for one Celery app. Attributes appear when first asked for.

    Raises:
        SettingsError: by whichever attribute is asked for first, if the configuration is wrong.
    """

    def __init__(self, app: celery.Celery) -> None:
        self.app = app

    @cached_property
    def settings(self) -> Settings:
        return Settings.from_celery(self.app.conf)

    @cached_property
    def is_eager(self) -> bool:
        """Whether tasks run in line; read once, as settings are: a look costs 10 µs."""
        return bool(self.app.conf.task_always_eager)

    @cached_property
    def publisher(self) -> Publisher:
        settings = self.settings
        return Publisher(self.app, queue=settings.queue, timeout_s=settings.publish_timeout)

    @cached_property
    def store(self) -> Store | None:
        """The outbox of this process and its relay; None where its directory cannot be used.

        Said once: a process that cannot store goes on without.
        """
        settings, conf = self.settings, self.app.conf
        prefix = (conf.broker_transport_options or {}).get("global_keyprefix", "")
        broker = conf.broker_url
        broker = str(broker[0] if isinstance(broker, (list, tuple)) else broker)
        try:
            store = Store(
                directory_for(settings.outbox_dir, broker, settings.queue, prefix),
                # With more time than a request has: a batch is larger, and nobody waits for it.
                Publisher(
                    self.app,
                    queue=settings.queue,
                    timeout_s=max(settings.publish_timeout, _RELAY_TIMEOUT_S),
                ),
                max_bytes=settings.outbox_max_bytes,
                batch_events=settings.batch_events,
                batch_bytes=settings.batch_bytes,
                linger_s=settings.linger,
                on_relayed=lambda events: tally().relay(events),
            )
        except OutboxError as exc:
            logger.warning(
                "no outbox, so events that the broker does not take will be dropped: %s "
                "(set optly_outbox_dir to a directory that this user may write)",
                exc,
            )
            return None
        _close_at_exit()
        return store

    @property
    def opened_store(self) -> Store | None:
        """The store if there has been need of it."""
        return self.__dict__.get("store")

    @cached_property
    def transport(self) -> Transport:
        settings = self.settings
        return Transport(
            allowed_hosts=settings.allowed_hosts,
            timeout_s=settings.request_timeout,
            url_override=settings.url_override,
            strict=settings.strict,
            user_agent=f"optly_celery/{__version__}",
        )

    @cached_property
    def policy(self) -> RetryPolicy:
        settings = self.settings
        return RetryPolicy(
            max_attempts=settings.max_retries + 1,
            base_backoff_s=settings.retry_backoff,
            max_backoff_s=settings.retry_backoff_max,
            max_age_s=settings.max_age,
        )

    @cached_property
    def dead_letters(self) -> DeadLetters:
        settings = self.settings
        if settings.dead_letter_url is None:
            raise SettingsError(
                "the broker is not Redis, so there is no place for dead letters: "
                "set optly_dead_letter_url to a redis:// URL"
            )
        prefix = (self.app.conf.broker_transport_options or {}).get("global_keyprefix", "")
        return DeadLetters(
            settings.dead_letter_url, max_age_s=settings.dead_letter_max_age, key_prefix=prefix
        )


_runtimes: dict[celery.Celery, Runtime] = {}
_inherited: list[object] = []
_tally = Tally()
_fork_hook_set = False
_exit_hook_set = False


def runtime_of(app: Any) -> Runtime:
    """This process's collaborators for an app."""
    found = _runtimes.get(app)
    if found is None:
        app = getattr(app, "_get_current_object", lambda: app)()
        _reset_after_fork()
        # Two threads at once may build two; the one that is kept is the one that both return.
        found = _runtimes.setdefault(app, Runtime(app))
    return found


def tally() -> Tally:
    """This process's counters."""
    _reset_after_fork()
    return _tally


def stats() -> dict[str, Any]:
    """What became of the events of this process since it started, or was forked.

    ``accepted`` = ``published`` + ``stored`` + the sum of ``dropped``, which is by reason, at any
    time at which no dispatch is under way. ``refused``, by reason, is what was no event.
    ``relayed`` is what has left an outbox for the broker; ``outbox`` tells what waits in this
    process's: rows, bytes, and the age of the oldest in seconds.
    """
    facts = {"rows": 0, "bytes": 0, "oldest_age_s": 0.0}
    for store in _stores():
        facts = store.facts()
    return {**_tally.as_dict(), "outbox": facts}


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


def _stores() -> list[Store]:
    return [s for r in list(_runtimes.values()) if (s := r.opened_store) is not None]


def _close_at_exit() -> None:
    global _exit_hook_set
    if not _exit_hook_set:
        _exit_hook_set = True
        atexit.register(close)
        # Children of multiprocessing and of Celery's prefork pool end without atexit.
        multiprocessing.util.Finalize(None, close, exitpriority=10)
        signals.worker_process_shutdown.connect(_close_in_child, weak=False)


def _close_in_child(**_: Any) -> None:
    close()


def _reset_after_fork() -> None:
    global _fork_hook_set
    if not _fork_hook_set:
        _fork_hook_set = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    global _runtimes, _tally, _exit_hook_set
    # Kept, not closed: closing would say goodbye on connections that are still the parent's.
    _inherited.append(_runtimes)
    _runtimes, _tally, _exit_hook_set = {}, Tally(), False
