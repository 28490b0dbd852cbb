"""What a worker is given before it takes a single message, or why it does not start."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from celery import bootsteps

from ..errors import SettingsError
from ..runtime.process import runtime_of
from . import ending
from .borrowed import FEATURES, PAUSE, RECEIPT, UNREADABLE, missing
from .parts import parts_of
from .receive import origin, unfold
from .receive.receipt import AtomicReceipt, serve
from .request import give_backs_in_a_line
from .told_to_end import between_turns

logger = logging.getLogger(__name__)

_EX_CONFIG = 78


def prepare(app: Any, *, tuning: Iterable[type] = ()) -> None:
    """Prepare an app whose worker is starting, or refuse to start one that is set up wrong.

    ``tuning`` are further consumer steps, which no promise depends on.
    """
    try:
        runtime = runtime_of(app)
        runtime.dead_letters  # noqa: B018 - built, and so checked
        ending.watch()
        app.steps["consumer"].update((DeliverStep, *tuning))
        if RECEIPT not in missing():
            from .receive import transport  # noqa: PLC0415 - it could not even be imported

            transport.choose(app, runtime.settings.queue)
        logging.getLogger("celery.app.trace").addFilter(give_backs_in_a_line)
    except SettingsError as exc:
        # Celery logs and swallows what a signal receiver raises, except an exit.
        print(f"optly_celery: {exc}", file=sys.stderr)  # noqa: T201 - no log is set up yet
        raise SystemExit(_EX_CONFIG) from None


class DeliverStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step of the deliver queue; Celery starts it again after each reconnection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._parts = parts_of(consumer)
        for feature, gone in self._parts.missing.items():
            logger.warning(
                "this Celery or kombu is not as optly_celery knows it (%s), so %s",
                ", ".join(gone), FEATURES[feature].without,
            )  # fmt: skip
        if UNREADABLE not in self._parts.missing:
            unfold.install()
            self._parts.unreadable.install()

    def start(self, consumer: Any) -> None:
        """Begin, unless the connection would hand waiting events out again.

        `Settings` has looked at the configuration; here is what came of it.
        """
        timeout_s = getattr(consumer.connection.default_channel, "visibility_timeout", None)
        try:
            if timeout_s is not None:
                settings = runtime_of(consumer.app).settings
                settings.check_visibility_timeout(float(timeout_s))
        except SettingsError as exc:
            logger.critical("%s", exc)
            raise SystemExit(_EX_CONFIG) from None
        channel = consumer.task_consumer.channel
        origin.watch(channel, self._parts.queue)
        if isinstance(channel, AtomicReceipt):
            serve(channel, self._parts.queue)
        between_turns(consumer)
        if PAUSE not in self._parts.missing:
            self._parts.pausing.start()
        self._parts.set_aside.start()

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 - Celery's signature
        self._parts.pausing.stop()
        self._parts.set_aside.stop()

    shutdown = stop
