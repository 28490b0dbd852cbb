"""Options of Celery's that a worker of the deliver task cannot have, or has at a price.

Annotations (``task_annotations``) may set whatever a task has. The deliver task takes those that no
promise hangs on, and keeps the rest as it was written.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Task, bootsteps

from ..names import DELIVER_TASK
from .ours import consumes

logger = logging.getLogger(__name__)

# How a task is limited, shown and told of; Celery calls the hooks after the event was safe, or
# before it was touched.
_HARMLESS = {
    "rate_limit", "time_limit", "soft_time_limit", "priority", "track_started", "send_events",
    "trail", "resultrepr_maxsize", "before_start", "after_return", "on_success", "on_failure",
    "on_retry",
}  # fmt: skip
# Celery reads these off a task, though its class does not declare them.
_READ_BY_CELERY = {
    "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max",
    "retry_jitter", "override_max_retries", "queue", "exchange", "exchange_type", "routing_key",
    "delivery_mode", "compression", "immediate", "mandatory",
}  # fmt: skip
_OURS = {
    "max_retries": "optly_max_retries",
    "override_max_retries": "optly_max_retries",
    "retry_kwargs": "optly_max_retries",
    "default_retry_delay": "optly_retry_backoff",
    "retry_backoff": "optly_retry_backoff",
    "retry_backoff_max": "optly_retry_backoff_max",
    "expires": "optly_max_age",
    "queue": "optly_queue",
    "exchange": "optly_queue",
    "routing_key": "optly_queue",
}
_GONE = object()
EX_CONFIG = 78
"""Exit code of a worker that is set up wrong; sysexits.h calls it so."""


class AnnotatedTask(Task):  # type: ignore[misc]
    """A task that takes annotations as far as no promise hangs on what they set."""

    abstract = True
    not_taken: tuple[str, ...] = ()
    """Names that annotations have set, and that are as if they had not."""

    @classmethod
    def annotate(cls) -> None:
        """As Celery's. It may come to anything, so what is not to be is set back afterwards."""
        before = dict(vars(cls))
        super().annotate()
        changed = {key for key, value in vars(cls).items() if value is not before.get(key, _GONE)}
        refused = {key for key in changed if key in before or _is_relied_upon(cls, key)}
        cls.not_taken = tuple(sorted(refused - _HARMLESS))
        for key in cls.not_taken:
            if key in before:
                setattr(cls, key, before[key])
            else:
                delattr(cls, key)


def _is_relied_upon(cls: type, name: str) -> bool:
    """Whether it is more than an attribute of somebody's own."""
    inherited = any(name in vars(base) for base in cls.__mro__[1:])
    return inherited or name in _READ_BY_CELERY or name.startswith("__")


class Look(bootsteps.Step):  # type: ignore[misc]
    """Worker step of the deliver queue: what is set, before there is a pool and once only.

    Raises:
        SystemExit: the worker would end at the first load.
    """

    def __init__(self, worker: Any, autoscale: object = None, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        app = worker.app
        if not consumes(app):
            return
        if autoscale and not _grows(worker.pool_cls):
            kind = worker.pool_cls.__module__.rpartition(".")[2]
            logger.critical(
                "--autoscale: a pool of this kind (%s) can neither grow nor shrink: give its size "
                "with -c, or take -P prefork, gevent or eventlet", kind,
            )  # fmt: skip
            raise SystemExit(EX_CONFIG)
        _say(app)


def _grows(pool: type) -> bool:
    from celery.concurrency import prefork  # noqa: PLC0415 - not for every app that imports tasks

    # A prefork pool gets its methods when it starts.
    return issubclass(pool, prefork.TaskPool) or hasattr(pool, "grow")


def _say(app: Any) -> None:
    for name in getattr(app.tasks.get(DELIVER_TASK), "not_taken", ()):
        ours = f"set {_OURS[name]} instead" if name in _OURS else "events are safe as it is"
        logger.warning("task_annotations: %s is not taken for %s: %s", name, DELIVER_TASK, ours)
    if not app.conf.worker_enable_remote_control:
        logger.warning(
            "worker_enable_remote_control is off, so nobody can ask this worker how it is: "
            "`optly-celery status --worker`, where it reads this configuration, looks at the "
            "broker alone, and where it reads another takes this worker for dead"
        )
