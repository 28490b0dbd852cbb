"""The collector, in a process of its own: the SDK's shares its interpreter with nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from .errors import DemoError

_READY_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.02
_TIMEOUT_S = 10.0


class CollectorProcess:
    """``python -m optly_celery.testing.stand_in``, away for ``outage_s`` at POST ``outage_at``."""

    def __init__(self, directory: Path, *, port: int, outage_at: int, outage_s: float) -> None:
        self._directory = directory
        self._options = (f"--port={port}", "--outage", str(outage_at), str(outage_s))
        self._output = directory / "collector.log"
        self._known = 0
        self._address = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, check: Callable[[], None]) -> str:
        """Start it and return its URL; calls ``check`` all the while, which may raise.

        Raises:
            DemoError: the port is taken, a package is missing, or it does not start.
        """
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - numbers only
                [sys.executable, "-m", "optly_celery.testing.stand_in", "--until-eof",
                 *self._options],
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # or it would hear Ctrl-C, too
            )  # fmt: skip
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            check()
            ended = self._process.poll() is not None or time.monotonic() > deadline
            said = self._output.read_text(errors="replace")
            for line in said[: said.rfind("\n") + 1].splitlines():  # the rest is being written
                if line.startswith("http://"):
                    self._address = urlsplit(line).netloc
                    return line
                if line.startswith("Error: "):
                    raise DemoError(line.removeprefix("Error: ").removesuffix("."))
            if ended:
                words = said.strip().splitlines()
                raise DemoError(f"the collector did not start: {words[-1] if words else 'no word'}")
            time.sleep(_LOOK_EVERY_S)

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

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
