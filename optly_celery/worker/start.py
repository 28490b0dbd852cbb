"""What a worker is given before it takes a single message, or why it does not start."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from celery import bootsteps

from ..errors import SettingsError
from ..runtime.process import runtime_of
from . import ending, options
from .borrowed import FEATURES, PAUSE, RECEIPT, UNREADABLE, missing
from .ours import before_it_is_added, consumes, warn_of_another
from .parts import Parts, parts_of
from .receive import origin, unfold
from .receive.receipt import AtomicReceipt, serve
from .request import give_backs_in_a_line
from .told_to_end import between_turns

logger = logging.getLogger(__name__)

_EX_CONFIG = options.EX_CONFIG


def prepare(app: Any, *, tuning: Iterable[type] = ()) -> bool:
    """Prepare an app whose worker is starting, or refuse to start one that is set up wrong.

    ``tuning`` are further consumer steps, which no promise depends on. Returns whether the worker
    consumes the deliver queue; another is only watched, in case that somebody adds the queue.
    """
    steps = app.steps["consumer"]
    if not consumes(app):
        steps.difference_update(tuning)  # of a worker of this app that was here before
        steps.add(DeliverStep)
        return False
    try:
        runtime = runtime_of(app)
        runtime.dead_letters  # noqa: B018 - built, and so checked
        ending.watch()
        steps.update((DeliverStep, *tuning))
        app.steps["worker"].add(options.Look)
        if RECEIPT not in missing():
            from .receive import transport  # noqa: PLC0415 - it could not even be imported

            transport.choose(app, runtime.settings.queue)
    except SettingsError as exc:
        # Celery logs and swallows what a signal receiver raises, except an exit.
        print(f"optly_celery: {exc}", file=sys.stderr)  # noqa: T201 - no log is set up yet
        raise SystemExit(_EX_CONFIG) from None
    logging.getLogger("celery.app.trace").addFilter(give_backs_in_a_line)
    return True


class DeliverStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step of the deliver queue; Celery starts it again after each reconnection.

    In a worker that does not consume that queue it waits until somebody adds it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._consumer = consumer
        self._parts: Parts | None = None
        self._told = self._runs = False
        before_it_is_added(consumer, self._before_added)
        if consumes(consumer.app):
            self._install()

    def start(self, consumer: Any) -> None:
        """Begin, unless the worker cannot keep what is promised.

        `Settings` has looked at the configuration; here is what came of it.
        """
        if not consumes(consumer.app):
            if not self._told:
                warn_of_another(consumer.app)
            self._told = True
            return
        try:
            self._begin()
        except SettingsError as exc:
            logger.critical("%s", exc)
            raise SystemExit(_EX_CONFIG) from None

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
        if self._parts is not None:
            self._runs = False
            self._parts.pausing.stop()
            self._parts.set_aside.stop()

    shutdown = stop

    def _before_added(self) -> str | None:
        try:
            if not self._runs:
                self._begin()
        except SettingsError as exc:
            return str(exc)
        return None

    def _install(self) -> Parts:
        if self._parts is not None:
            return self._parts
        self._parts = parts = parts_of(self._consumer)
        for feature, gone in parts.missing.items():
            logger.warning(
                "this Celery or kombu is not as optly_celery knows it (%s), so %s",
                ", ".join(gone), FEATURES[feature].without,
            )  # fmt: skip
        if UNREADABLE not in parts.missing:
            unfold.install()
            parts.unreadable.install()
        logging.getLogger("celery.app.trace").addFilter(give_backs_in_a_line)
        return parts

    def _begin(self) -> None:
        consumer = self._consumer
        timeout_s = getattr(consumer.connection.default_channel, "visibility_timeout", None)
        if timeout_s is not None:
            settings = runtime_of(consumer.app).settings
            settings.check_visibility_timeout(float(timeout_s))
        parts = self._install()
        channel = consumer.task_consumer.channel
        origin.watch(channel, parts.queue)
        if isinstance(channel, AtomicReceipt):
            serve(channel, parts.queue)
        between_turns(consumer)
        self._runs = True
        if PAUSE not in parts.missing:
            parts.pausing.start()
        parts.set_aside.start()
