"""This process's outbox and its relay, as one thing: where events wait that the broker lacks."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import OutboxError
from ..event.event import Event
from ..host import forks
from ..host.uwsgi import threads_run
from ..settings.settings import Settings
from .claims import Claim, new_path, set_aside
from .outbox import Outbox
from .publisher import Publisher
from .relay import Relay

logger = logging.getLogger(__name__)


class Store:
    """Opens a file of its own in ``directory``, and relays it and what dead processes left there.

    Raises:
        OutboxError: the directory or the file cannot be used; the message says which and why.
    """

    def __init__(
        self,
        directory: Path,
        publisher: Publisher,
        settings: Settings,
        *,
        on_relayed: Callable[[int], object],
    ) -> None:
        self.directory = directory
        self._max_bytes = settings.outbox_max_bytes
        self._claim, self._outbox = self._open()
        self.relay = Relay(
            self._outbox, publisher, settings, on_relayed=on_relayed, in_line=not threads_run()
        )
        forks.wait_for(self.relay)
        if not threads_run():
            logger.warning(
                "uWSGI runs without --enable-threads, so events are published in line, not in the "
                "background: add enable-threads = true to its configuration"
            )

    def put(self, event: Event) -> None:
        """Store one event for the relay; it is in the file when this returns.

        Raises:
            OutboxError: it is not, for instance because the outbox or the disk is full.
        """
        self._outbox.append(event)
        self.relay.wake()

    def waiting(self) -> dict[str, float | int]:
        """What waits here: rows, bytes, and the age of the oldest row in seconds."""
        oldest_at = self._outbox.oldest_at
        age_s = 0.0 if oldest_at is None else max(0.0, time.time() - oldest_at)
        return {"rows": self._outbox.rows, "bytes": self._outbox.bytes, "oldest_age_s": age_s}

    def close(self, timeout_s: float) -> bool:
        """Relay what is there, within a limit, and close the file. True if nothing is left.

        What is left stays in the file, for the next process that uses the directory.
        """
        done = self.relay.close(timeout_s)
        self._outbox.close()
        self._claim.release()
        return done

    def _open(self) -> tuple[Claim, Outbox]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = new_path(self.directory)
            claim = Claim.take(path)
        except OSError as exc:
            raise OutboxError(
                f"{exc.filename or self.directory}: {exc.strerror}", reason="outbox_io"
            ) from None
        if claim is None:
            raise OutboxError(f"{path} is in use", reason="outbox_io")
        try:
            return claim, Outbox(path, max_bytes=self._max_bytes)
        except OutboxError as exc:
            if exc.reason == "outbox_damaged":
                set_aside(path)
            claim.release()
            raise


def directory_for(base: str | None, broker_url: str, queue: str, prefix: str) -> Path:
    """Where processes that publish to this broker and queue keep their outboxes.

    A directory of its own for each destination, since processes adopt each other's files, and
    an event must not reach another environment's broker. User and password do not count: they
    change, and the events stay.
    """
    parts = urlsplit(broker_url.partition(";")[0])
    where = f"{parts.hostname}:{parts.port}{parts.path} {prefix} {queue}"
    name = hashlib.sha256(where.encode()).hexdigest()[:12]
    return (Path(base).expanduser() if base else _state_directory()) / name


def _state_directory() -> Path:
    chosen = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(chosen) if chosen else Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home, as services often are
        return Path(tempfile.gettempdir()) / f"optly_celery-{os.getuid()}"
    return home / "optly_celery" / "outbox"
