"""The demo's worker and collector, in processes that do not outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from .errors import DemoError

_READY_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.02
_TIMEOUT_S = 10.0


class _Module:
    """``python -m …`` in a directory and a process group of its own; started when it is made."""

    _READY: str

    def __init__(
        self, directory: Path, name: str, *command: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._log = directory / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                [sys.executable, "-m", *command],
                env=env,
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends this
            )

    def check(self) -> None:
        """Return if it runs.

        Raises:
            DemoError: it has ended.
        """
        if (code := self._process.poll()) is not None:
            raise DemoError(f"the {self._name} ended with code {code}{self._last_words()}")

    def kill(self) -> None:
        """End it, children included."""
        # One that has ended by itself: gone, or, on macOS, not to be killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def wait_until_ready(self, check: Callable[[], None]) -> str:
        """Return what it says then; calls ``check`` all the while, which may raise.

        Raises:
            DemoError: it ended, or took longer than a minute.
        """
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            check()
            ended = self._process.poll() is not None  # before it is read what it said at the end
            if said := re.search(self._READY, self._log.read_text(errors="replace"), re.MULTILINE):
                return said[0]
            if ended:
                self.check()
            if time.monotonic() > deadline:
                within = f"within {_READY_WITHIN_S:g} s"
                raise DemoError(f"the {self._name} was not ready {within}{self._last_words()}")
            time.sleep(_LOOK_EVERY_S)

    def _last_words(self) -> str:
        spoken = self._log.read_text(errors="replace").strip().split("\n")[-1]
        return f"; its last words: {spoken.strip()}" if spoken else " and said nothing"


class Worker(_Module):
    """``celery -A optly_celery worker``; what it holds when it is killed is the broker's.

    Configured as any standalone worker: by the environment, and by a ``celeryconfig.py`` in the
    directory.
    """

    _READY = r" ready\."

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        super().__init__(
            directory, "worker", "celery", "-A", "optly_celery", "worker", "--loglevel", "info",
            "--without-mingle", "--without-gossip", "--hostname", "optly-demo@%h", env=environment,
        )  # fmt: skip
        self.pid = self._process.pid  # its group's as well


class CollectorProcess(_Module):
    """``python -m optly_celery.testing.stand_in``, away for ``outage_s`` at POST ``outage_at``.

    A process of its own, as the SDK's shares its interpreter with nothing.
    """

    _READY = r"^(http://|Error: ).*\n"

    def __init__(self, directory: Path, *, port: int, outage_at: int, outage_s: float) -> None:
        super().__init__(
            directory, "collector", "optly_celery.testing.stand_in", "--until-eof",
            f"--port={port}", "--outage", str(outage_at), str(outage_s),
        )  # fmt: skip
        self._known = 0
        self._address = ""

    def wait_until_ready(self, check: Callable[[], None]) -> str:
        """Return its URL; raises a `DemoError` with its own words where it says an error."""
        line = super().wait_until_ready(check).rstrip()
        if line.startswith("Error: "):
            raise DemoError(line.removeprefix("Error: ").removesuffix("."))
        self._address = urlsplit(line).netloc
        return line

    def posts(self) -> list[tuple[int | None, list[str]]]:
        """What has come since the last call: how each POST was answered, and its uuids.

        Raises:
            DemoError: it does not answer any more.
        """
        connection = HTTPConnection(self._address, timeout=_TIMEOUT_S)  # whatever proxy is set
        try:
            connection.request("GET", f"/posts?from={self._known}")
            found = json.load(connection.getresponse())
        except (OSError, HTTPException, ValueError) as exc:
            raise DemoError(f"the collector does not answer ({type(exc).__name__})") from None
        finally:
            connection.close()
        self._known += len(found)
        return [(status, uuids) for status, uuids in found]


@contextlib.contextmanager
def leash(*pids: int) -> Iterator[None]:
    """End processes when this one dies in a way that it cannot answer, such as SIGKILL.

    A negative number means a process group, as for ``kill``. A shell waits on a pipe, which the
    kernel closes with this process.
    """
    # One at a time: not every shell's kill goes on after one that is gone, or knows "--".
    script = 'read -r _; for pid in "$@"; do kill -9 "$pid"; done'
    with subprocess.Popen(  # noqa: S603 - numbers only
        ["/bin/sh", "-c", script, "sh", *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        try:
            yield
        finally:
            shell.kill()  # or the end of the pipe would set it off
