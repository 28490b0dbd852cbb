"""Running commands in the test's own process."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import click
from click.testing import CliRunner

from optly_celery.cli import optimizely


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(
    *arguments: str,
    app: Any = None,
    answer: str | None = None,
    command: click.Command = optimizely,
) -> Done:
    """Run a command to its end; fails where a user would see a traceback."""
    # click before 8.2 mixes the two streams unless told otherwise.
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(**({"mix_stderr": False} if old else {}))
    done = runner.invoke(command, arguments, obj=SimpleNamespace(app=app), input=answer)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)
