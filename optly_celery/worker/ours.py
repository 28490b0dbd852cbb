"""Whether a worker is one of ours: it consumes the deliver queue, and not just knows the task.

An app's other workers load the same modules. They are let alone, wrong settings included, until
somebody has them consume the queue as well.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from ..names import DELIVER_TASK
from ..settings.settings import PREFIX, Settings

logger = logging.getLogger(__name__)


def queue_of(app: Any) -> str:
    """The deliver queue's name as it is configured, also where other settings are wrong."""
    name = app.conf.get(f"{PREFIX}queue")
    return name if isinstance(name, str) else Settings.queue


def consumes(app: Any) -> bool:
    """Whether the worker of this app consumes the deliver queue, as far as is known by now."""
    chosen, wanted = app.amqp.queues.consume_from, queue_of(app)
    # By name and by what it goes by in `task_queues`, where that differs.
    return wanted in chosen or any(queue.name == wanted for queue in chosen.values())


def warn_of_another(app: Any) -> None:
    """Say that this worker delivers nothing, and what to add if it was meant to."""
    queue, others = queue_of(app), sorted(app.amqp.queues.consume_from)
    logger.warning(
        "this worker knows %s and consumes no queue that holds it (it consumes %s): to have it "
        "deliver events, add the queue, as in -Q %s; it is well where another worker consumes %s",
        DELIVER_TASK, ", ".join(others), ",".join([queue, *others]), queue,
    )  # fmt: skip


def before_it_is_added(consumer: Any, prepare: Callable[[], str | None]) -> None:
    """Have ``prepare`` run before a person adds the deliver queue by remote control.

    What it returns is why the queue cannot be consumed; then it is not.
    """
    add = consumer.add_task_queue

    @functools.wraps(add)
    def added(queue: Any, *args: Any, **options: Any) -> Any:
        queues, wanted = consumer.app.amqp.queues, queue_of(consumer.app)
        # Asked by `in`: a look would make a queue of this name.
        if wanted in {queue, queues[queue].name if queue in queues else queue}:
            why_not = prepare()
            if why_not is not None:
                logger.critical("%s is not consumed: %s", queue, why_not)
                return None
        return add(queue, *args, **options)

    consumer.add_task_queue = added
