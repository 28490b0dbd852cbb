"""The endpoint, in a process of its own: the SDK's shares its interpreter with nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import DemoError

_READY_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.02


class Endpoint:
    """A collector that goes away for ``outage_s`` at request number ``outage_at``."""

    def __init__(self, directory: Path, *, port: int, outage_at: int, outage_s: float) -> None:
        self._directory = directory
        self._arguments = (str(port), str(outage_at), str(outage_s))
        self._output = directory / "received.jsonl"
        self._errors = directory / "endpoint.log"
        self._read_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, check: Callable[[], None]) -> str:
        """Start it and return its URL; calls ``check`` all the while, which may raise.

        Raises:
            DemoError: the port is taken, a package is missing, or it does not start.
        """
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - numbers only
                [sys.executable, "-m", "optly_celery.demo.serve", *self._arguments],
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # or it would hear Ctrl-C, too
            )
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            check()
            ended = self._process.poll() is not None
            for line in self._new_lines():
                if "error" in line:
                    raise DemoError(line["error"])
                return str(line["url"])
            if ended or time.monotonic() > deadline:
                words = self._errors.read_text(errors="replace").strip().splitlines()
                raise DemoError(f"the collector did not start: {words[-1] if words else 'no word'}")
            time.sleep(_LOOK_EVERY_S)

    def received(self) -> list[tuple[list[str], int | None]]:
        """What has come since the last call: the uuids of each POST, and how it was answered."""
        return [(line["uuids"], line["status"]) for line in self._new_lines()]

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _new_lines(self) -> list[dict[str, Any]]:
        with self._output.open("rb") as output:
            output.seek(self._read_bytes)
            text = output.read()
        whole = text[: text.rfind(b"\n") + 1]  # the rest is still being written
        self._read_bytes += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
