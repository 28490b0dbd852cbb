"""Events that the broker does not have yet, in a SQLite file. The only module with sqlite3.

One file per process, in WAL mode: an append is one write to the page cache, which outlives the
process that made it, though not the machine. Whose file it is: claims.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import OutboxError
from ..event.context import Context
from ..event.event import Event

_APPLICATION_ID = 0x4F504C59  # "OPLY": tells our files from other SQLite files
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
CREATE TABLE IF NOT EXISTS contexts (
    id INTEGER PRIMARY KEY, url TEXT, verb TEXT, headers TEXT, head TEXT, tail TEXT, project TEXT,
    mergeable INTEGER);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, context INTEGER, at REAL, count INTEGER, visitors TEXT);
"""
_ROW_BYTES = 40  # what a row takes beside its text
_CONTEXTS_KEPT = 100
_REASONS = {
    "malformed": "outbox_damaged",
    "not a database": "outbox_damaged",
    "is full": "outbox_disk_full",
    "readonly": "outbox_read_only",
    "read-only": "outbox_read_only",
}


class Row(NamedTuple):
    """One stored event."""

    id: int
    event: Event

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.event.visitors_text) + _ROW_BYTES


class Outbox:
    """One file of events, open in one process.

    Raises, from every method: `OutboxError`, with a reason. Nothing stored is lost by that.
    """

    def __init__(self, path: Path, *, max_bytes: int, create: bool = True) -> None:
        self.path = path
        self._max_bytes = max_bytes
        # One connection for all threads, and this for one statement at a time.
        self._lock = threading.Lock()
        self._contexts: dict[Context, int] = {}
        self._closed = False
        with _translated(), contextlib.ExitStack() as stack:
            if not create and not path.exists():
                raise OutboxError(f"{path} is gone", reason="outbox_gone")
            if create:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = stack.enter_context(contextlib.closing(_connect(path)))
            self._insert = self._db.cursor().execute  # one cursor for all, not one for each
            self._db.executescript(_SCHEMA)
            total = self._db.execute(
                f"SELECT count(*), coalesce(sum(length(visitors) + {_ROW_BYTES}), 0),"  # noqa: S608
                " coalesce(max(id), 0), min(at) FROM events"
            ).fetchone()
            known = self._db.execute(
                "SELECT id, url, verb, headers, head, tail, project, mergeable FROM contexts"
            ).fetchall()
            stack.pop_all()  # it is good, and stays open
        self.rows: int = total[0]
        self.bytes: int = total[1]
        self.oldest_at: float | None = total[3]
        # Not left to SQLite, which hands out an id again once its row is deleted.
        self._ids = itertools.count(total[2] + 1)
        self._by_id = {row[0]: Context._make(row[1:]) for row in known}
        self._contexts = {context: i for i, context in self._by_id.items()}

    def append(self, event: Event) -> None:
        """Store one event, as of now if it does not say when; in the file when this returns."""
        at = time.time() if event.enqueued_at is None else event.enqueued_at
        context, visitors = event.context, event.visitors_text
        size = len(visitors) + _ROW_BYTES
        with self._lock:
            if self.bytes + size > self._max_bytes:
                raise OutboxError(
                    f"the outbox holds {self.bytes:,} bytes, and optly_outbox_max_bytes is "
                    f"{self._max_bytes:,}",
                    reason="outbox_full",
                )
            if self._closed:
                raise OutboxError("the outbox is closed", reason="outbox_closed")
            try:
                number = self._contexts.get(context) or self._add_context(context)
                self._insert(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                    (next(self._ids), number, at, event.event_count, visitors),
                )
            except sqlite3.Error as exc:
                raise OutboxError(str(exc), reason=_reason(exc)) from None
            self.rows += 1
            self.bytes += size
            if self.oldest_at is None:
                self.oldest_at = at

    def read(self, *, limit: int, max_bytes: int) -> list[Row]:
        """The oldest rows, in the order in which they were stored.

        At most ``limit`` of them, and of ``max_bytes`` together, unless the first one alone has
        more.
        """
        rows: list[Row] = []
        size = 0
        with self._lock, _translated():
            found = self._db.execute(
                "SELECT id, context, at, count, visitors FROM events ORDER BY id LIMIT ?", (limit,)
            )
            for number, context, at, count, visitors in found:
                size += len(visitors)
                if rows and size > max_bytes:
                    break
                event = Event.whole(self._by_id[context], visitors, count, enqueued_at=at)
                rows.append(Row(number, event))
            found.close()
        return rows

    def settle(self, rows: list[Row]) -> None:
        """Delete rows that the broker has; they are the oldest ones, in order."""
        with self._lock, _translated():
            self._db.execute("DELETE FROM events WHERE id <= ?", (rows[-1].id,))
            self.rows -= len(rows)
            self.bytes -= sum(row.size for row in rows)
            self.oldest_at = None
            if self.rows:
                row = self._db.execute("SELECT at FROM events ORDER BY id LIMIT 1").fetchone()
                self.oldest_at = row[0] if row else None
            elif len(self._contexts) > _CONTEXTS_KEPT:
                self._db.execute("DELETE FROM contexts")
                self._contexts, self._by_id = {}, {}

    def close(self) -> None:
        """Close the file, and remove it if nothing is left in it."""
        with self._lock:
            if self._closed:
                return
            self._closed, left = True, True
            with contextlib.closing(self._db), contextlib.suppress(sqlite3.Error):
                left = self._db.execute("SELECT count(*) FROM events").fetchone()[0] > 0
            if not left:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _add_context(self, context: Context) -> int:
        number = max(self._by_id, default=0) + 1
        self._db.execute("INSERT INTO contexts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, *context))
        # Before the first row that names it can be read.
        self._by_id[number] = context
        self._contexts[context] = number
        return number


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{path}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(connection))
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        if found not in (0, _APPLICATION_ID):
            raise OutboxError(f"{path} is no file of ours", reason="outbox_foreign")
        # NORMAL: no wait for the disk per event. A killed process loses nothing by it; a machine
        # that loses power can lose the last events.
        # EXCLUSIVE: one connection is all there is, so a statement needs no file locks.
        connection.executescript(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
            " PRAGMA synchronous = NORMAL;"
        )
        stack.pop_all()
    return connection


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise OutboxError(str(exc), reason=_reason(exc)) from None
    except OSError as exc:
        raise OutboxError(f"{exc.strerror}: {exc.filename}", reason="outbox_io") from None


def _reason(exc: sqlite3.Error) -> str:
    text = str(exc)
    return next((reason for words, reason in _REASONS.items() if words in text), "outbox_io")
