"""A real worker process, which does not outlive the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import DemoError

_READY_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.05


class Worker:
    """``celery -A optly_celery worker`` in a directory and a process group of its own.

    Configured as any standalone worker: by the environment, and by a ``celeryconfig.py`` in the
    directory.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], config: str) -> None:
        self._directory = directory
        self._environment = environment
        self._log = directory / "worker.log"
        (directory / "celeryconfig.py").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, which is its group's as well; 0 before `start`."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it; returns at once."""
        command = [
            sys.executable, "-m", "celery", "-A", "optly_celery", "worker", "--loglevel", "info",
            "--without-mingle", "--without-gossip", "--hostname", "optly-demo@%h",
        ]  # fmt: skip
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                command,
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends this
            )

    def wait_until_ready(self, check: Callable[[], None]) -> None:
        """Return once it consumes; calls ``check`` all the while, which may raise.

        Raises:
            DemoError: it ended, or took longer than a minute.
        """
        deadline = time.monotonic() + _READY_WITHIN_S
        while b" ready." not in self._log.read_bytes():
            check()
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"the worker was not ready within {_READY_WITHIN_S:g} s{self._last_words()}"
                )
            time.sleep(_LOOK_EVERY_S)

    def check(self) -> None:
        """Return if it runs.

        Raises:
            DemoError: it has ended.
        """
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            raise DemoError(f"the worker ended with code {code}{self._last_words()}")

    def kill(self) -> None:
        """End it, children included; what it holds is the broker's, or already told as lost."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        spoken = [line.strip() for line in lines if line.strip()]
        return f"; its last words: {spoken[-1]}" if spoken else " and said nothing"


class Leash:
    """Ends processes when this one dies in a way that it cannot answer, such as SIGKILL.

    A shell that waits on a pipe, which the kernel closes with this process.
    """

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def tie(self, *pids: int) -> None:
        """From now on; a negative number means a process group, as for ``kill``."""
        # One at a time: not every shell's kill goes on after one that is gone, or knows "--".
        script = 'read -r _; for pid in "$@"; do kill -9 "$pid"; done'
        self._shell = subprocess.Popen(  # noqa: S603 - numbers only
            ["/bin/sh", "-c", script, "sh", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def untie(self) -> None:
        """Let go without ending anything."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
            if self._shell.stdin is not None:
                self._shell.stdin.close()
