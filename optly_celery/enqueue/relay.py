"""Moves outbox rows to the broker: reads, merges, publishes, and only then settles."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import OutboxError, PublishError
from ..event.batch import merge
from ..host.periodic import Periodic
from ..settings.settings import Settings
from .claims import Claim, files_in, set_aside
from .outbox import Outbox
from .publisher import Publisher

logger = logging.getLogger(__name__)

_ROWS = 1000  # read at once
_BYTES = 8_000_000  # held in memory at once, whatever the rows weigh, but for one row
_ADOPT_EVERY_S = 10.0
_BACKOFF_S = (0.1, 10.0)  # first and longest wait while the broker is in trouble


class Adopted(NamedTuple):
    """What came of looking for files of dead processes.

    ``events`` were relayed and ``files`` removed; ``alive`` are files whose owners still run.
    ``done`` is false if the broker stopped taking events before the end.
    """

    events: int
    files: int
    alive: int
    done: bool


class Relay:
    """Relays one process's outbox, and those of dead processes in the same directory.

    Broker trouble costs rows nothing: they stay as they are, and the relay waits, longer each
    time and at most 10 s. ``on_relayed`` gets the number of events that the broker has taken.
    """

    def __init__(
        self,
        own: Outbox,
        publisher: Publisher,
        settings: Settings,
        *,
        on_relayed: Callable[[int], object],
        in_line: bool = False,
    ) -> None:
        self._own = own
        self._publisher = publisher
        self._settings = settings
        self._on_relayed = on_relayed
        self._in_line = in_line
        self._thread = Periodic(self._round, name="optly-relay")
        # One round at a time, whoever runs it; greenlets wait for it, appends do not.
        self.rounds = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._adopt_at = 0.0
        self._hurry = False
        self._closing = threading.Event()

    @property
    def in_trouble(self) -> bool:
        """Whether the broker did not take what it was last given.

        Where no thread could find out that it does again, only until the backoff is over.
        """
        return self._failures > 0 and (not self._in_line or time.monotonic() < self._not_before)

    def wake(self) -> None:
        """Say that there is something in the outbox."""
        threadless = self._in_line or not self._thread.wake()
        if threadless and time.monotonic() >= self._not_before:
            self._relay_all()

    def broker_failed(self, exc: PublishError) -> None:
        """Say that the broker did not take an event, as the relay itself would have noticed."""
        if not self._failures:
            self._failed(exc)
            self._thread.wake()

    def flush(self, timeout_s: float) -> bool:
        """Relay what is in the outbox, within a limit. True if nothing is left.

        Does not wait for the linger, nor for a backoff that is under way.
        """
        deadline = time.monotonic() + timeout_s
        self._hurry = True
        try:
            while self._own.rows:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                if self.rounds.acquire(timeout=left_s):
                    try:
                        taken = self._relay(self._own)
                    finally:
                        self.rounds.release()
                    if not taken:
                        time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))
            return True
        finally:
            self._hurry = False

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop the thread; what is left stays in the file. True if nothing is."""
        started = time.monotonic()
        done = self.flush(timeout_s)
        self._closing.set()
        self._thread.stop(timeout_s - (time.monotonic() - started))
        return done

    def _round(self) -> float:
        """One call of the thread; returns how long it may sleep."""
        linger_s = self._lingering_s()
        if linger_s > 0:
            self._closing.wait(linger_s)
        wait_s = self._not_before - time.monotonic()
        if wait_s > 0:
            self._closing.wait(min(wait_s, 1.0))
            return 0.0
        with self.rounds:
            self._relay_all_locked()
        if self._own.rows:
            return 0.0
        return _ADOPT_EVERY_S

    def _relay_all(self) -> None:
        if self.rounds.acquire(blocking=False):
            try:
                self._relay_all_locked()
            finally:
                self.rounds.release()

    def _relay_all_locked(self) -> None:
        self._relay(self._own)
        if not self.in_trouble and time.monotonic() >= self._adopt_at:
            self._adopt_at = time.monotonic() + _ADOPT_EVERY_S
            self.adopt(self._own.path.parent)

    def adopt(self, directory: Path) -> Adopted:
        """Relay the files of processes that are gone; leave those of the living alone."""
        events = files = alive = 0
        for path in files_in(directory):
            if path == self._own.path:
                continue
            claim = Claim.take(path)
            if claim is None:
                alive += 1
                continue
            try:
                events += self._adopt_one(path)
                files += not path.exists()
            finally:
                claim.release()
            if self.in_trouble:
                break
        return Adopted(events, files, alive, done=not self.in_trouble)

    def _adopt_one(self, path: Path) -> int:
        taken = 0
        try:
            found = Outbox(path, max_bytes=0, create=False)
        except OutboxError as exc:
            _report(path, exc)
            return 0
        try:
            while count := self._relay(found):
                taken += count
                if self._in_line:
                    break  # a request waits: the rest next time
        except OutboxError as exc:
            _report(path, exc)
        finally:
            found.close()
        if taken:
            logger.info("relayed %d events that another process had left in %s", taken, path.name)
        return taken

    def _relay(self, source: Outbox) -> int:
        """One read of rows to the broker. Returns how many it took; 0 means none, or trouble."""
        rows = source.read(limit=_ROWS, max_bytes=_BYTES)
        if not rows:
            if source is self._own:
                self._failures = 0  # nothing left to try with: let the next event try
            return 0
        batches = merge(
            (row.event for row in rows),
            max_events=self._settings.batch_events,
            max_bytes=self._settings.batch_bytes,
        )
        try:
            self._publisher.publish_all(batches)
        except PublishError as exc:
            self._failed(exc)
            return 0
        # A kill here publishes these rows again: a duplicate, by uuid, never a loss.
        source.settle(rows)
        if self._failures:
            logger.info("the relay goes on: the broker takes events again")
        self._failures, self._not_before = 0, 0.0
        self._on_relayed(len(rows))
        return len(rows)

    def _failed(self, exc: PublishError) -> None:
        if not self._failures:
            logger.warning("events wait in the outbox for the broker: %s: %s", exc.reason, exc)
        first_s, longest_s = _BACKOFF_S
        wait_s = min(first_s * 2.0 ** min(self._failures, 16), longest_s)
        self._failures += 1
        self._not_before = time.monotonic() + wait_s * (0.5 + 0.5 * random.random())  # noqa: S311

    def _lingering_s(self) -> float:
        """How long to wait for a batch to fill."""
        oldest_at = self._own.oldest_at
        if self._hurry or oldest_at is None or self._own.rows >= self._settings.batch_events:
            return 0.0
        waited_s: float = time.time() - oldest_at
        return max(0.0, min(self._settings.linger, self._settings.linger - waited_s))


def _report(path: Path, exc: OutboxError) -> None:
    if exc.reason == "outbox_damaged":
        with contextlib.suppress(OSError):
            kept = set_aside(path)
            logger.error("%s cannot be read (%s): set aside as %s", path, exc, kept.name)
            return
    logger.error("%s is left as it is: %s", path, exc)
