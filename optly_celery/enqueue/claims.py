"""Whose outbox file is whose.

A file's owner holds a lock on ``<file>.lock`` that the kernel releases when it dies, however it
dies; whoever gets that lock may adopt the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from pathlib import Path


class Claim:
    """The right to a file: held while this object lives, and until its process ends.

    POSIX record locks, since a forked child does not inherit them: a lock that it did would
    outlive its owner.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Claim a file, or None while somebody else has it.

        Within one process the kernel does not tell owners apart: never take what is held here,
        as releasing the second would release the first.
        """
        lock = _lock_path(path)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == lock.stat().st_ino:
                return cls(path, descriptor)
        except OSError:
            pass  # held, or removed by its last holder meanwhile
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Give it up; the lock file goes with the file that it stands for."""
        if not self.path.exists():
            _lock_path(self.path).unlink(missing_ok=True)
        os.close(self._descriptor)


def new_path(directory: Path) -> Path:
    """A name that no other process uses, for this one's file."""
    return directory / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.outbox"


def files_in(directory: Path) -> list[Path]:
    """The outbox files of a directory, oldest first."""
    with contextlib.suppress(OSError):
        return sorted(directory.glob("*.outbox"), key=lambda path: path.name)
    return []


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, out of the way but never away; return its new name."""
    target = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
    return target


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
