"""What a process needs for one Celery app, built on first use from the app's configuration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import celery

from ..dead_letters.store import DeadLetters
from ..deliver.retry import RetryPolicy
from ..deliver.transport import Transport
from ..enqueue.publisher import Publisher
from ..enqueue.store import Store, directory_for
from ..errors import OutboxError, SettingsError
from ..host.uwsgi import threads_run
from ..settings.settings import Settings, visibility_timeout_s
from ..version import __version__
from .counters import Counters

logger = logging.getLogger(__name__)

_RELAY_TIMEOUT_S = 5.0
_USUAL_VISIBILITY_TIMEOUT_S = 360.0
_T = TypeVar("_T")
_LOCK = "_once_lock"


class lazy(Generic[_T]):  # noqa: N801 - used as `property` is
    """As `functools.cached_property`, which lets several threads make several since Python 3.12.

    The others wait for the first one. What raises is tried again by the next one who asks. Each
    object has a lock of its own, so that one that is made after a fork never meets a lock that
    another thread of the parent held.
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[_T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: Any, owner: type) -> lazy[_T] | _T:
        if instance is None:
            return self
        # No data descriptor: from the second look on, Python takes what is in here by itself.
        made = vars(instance)
        with made.setdefault(_LOCK, threading.RLock()):
            if self._name not in made:
                made[self._name] = self._make(instance)
            found: _T = made[self._name]
            return found


class Runtime:
    """What one process needs for one Celery app. Attributes appear when first asked for.

    ``counters`` gives the process's counters; ``on_store`` is called when there is an outbox.

    Raises:
        SettingsError: by whichever attribute is asked for first, if the configuration is wrong.
    """

    def __init__(
        self,
        app: celery.Celery,
        *,
        counters: Callable[[], Counters] = Counters,
        on_store: Callable[[], object] = bool,
    ) -> None:
        self.app = app
        self._counters = counters
        self._on_store = on_store

    @lazy
    def settings(self) -> Settings:
        return Settings.from_celery(self.app.conf)

    def checked(self) -> Runtime:
        """Itself, once its settings were read; for those who can tell a person what is wrong.

        Raises:
            SettingsError: as above, or reading the configuration raised something else.
        """
        try:
            self.settings  # noqa: B018 - read, and so checked
        except SettingsError:
            raise
        except Exception as exc:  # noqa: BLE001 - a configuration is a program, and may raise anything
            raise SettingsError(
                f"the configuration of the Celery app {self.app.main!r} cannot be read "
                f"({type(exc).__name__}: {exc})"
            ) from None
        return self

    @lazy
    def is_eager(self) -> bool:
        """Whether tasks run in line; read once, as settings are: a look costs 10 µs."""
        return bool(self.app.conf.task_always_eager)

    @lazy
    def publisher(self) -> Publisher:
        settings = self.settings
        return Publisher(self.app, queue=settings.queue, timeout_s=settings.publish_timeout)

    @property
    def outbox_directory(self) -> Path:
        """Where the outbox of this process is, or would be; nothing is made."""
        settings, conf = self.settings, self.app.conf
        prefix = (conf.broker_transport_options or {}).get("global_keyprefix", "")
        broker = conf.broker_url
        broker = str(broker[0] if isinstance(broker, (list, tuple)) else broker)
        return directory_for(settings.outbox_dir, broker, settings.queue, prefix)

    @lazy
    def store(self) -> Store | None:
        """The outbox of this process and its relay; None where its directory cannot be used.

        Said once: a process that cannot store goes on without.
        """
        settings = self.settings
        publisher = Publisher(self.app, queue=settings.queue, timeout_s=self._relay_timeout_s)
        publisher.prepare()
        try:
            store = Store(
                self.outbox_directory,
                publisher,
                settings,
                on_relayed=lambda events: self._counters().relay(events, store.waiting),
            )
        except OutboxError as exc:
            logger.warning(
                "no outbox, so events that the broker does not take will be dropped: %s "
                "(set optly_outbox_dir to a directory that this user may write)",
                exc,
            )
            return None
        self._on_store()
        return store

    @property
    def _relay_timeout_s(self) -> float:
        # More than a request has, as a batch is larger; but where a request waits for it.
        limit_s = self.settings.publish_timeout
        return max(limit_s, _RELAY_TIMEOUT_S) if threads_run() else limit_s

    @property
    def opened_store(self) -> Store | None:
        """The store if there has been need of it."""
        return self.__dict__.get("store")

    @lazy
    def transport(self) -> Transport:
        settings = self.settings
        return Transport(
            allowed_hosts=settings.allowed_hosts,
            timeout_s=settings.request_timeout,
            deadline_s=self.longest_post_s,
            url_override=settings.url_override,
            strict=settings.strict,
            user_agent=f"optly_celery/{__version__}",
        )

    @lazy
    def visibility_timeout_s(self) -> float | None:
        """How long the broker waits for an ack; None where it does not give up."""
        return visibility_timeout_s(self.app.conf)

    @lazy
    def longest_task_s(self) -> float:
        """How long one task may take: half of what the broker waits.

        The other half is for waiting in the worker, behind another such task.
        """
        known = self.visibility_timeout_s
        return (_USUAL_VISIBILITY_TIMEOUT_S if known is None else known) / 2

    @lazy
    def longest_post_s(self) -> float:
        """How long one POST may take; never more than its task."""
        return min(self.settings.longest_post_s, self.longest_task_s)

    @lazy
    def policy(self) -> RetryPolicy:
        settings = self.settings
        return RetryPolicy(
            max_attempts=settings.max_retries + 1,
            base_backoff_s=settings.retry_backoff,
            max_backoff_s=settings.retry_backoff_max,
            max_age_s=settings.max_age,
        )

    @lazy
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
