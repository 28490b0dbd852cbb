"""``manage.py optimizely …``: the commands of ``celery -A yourproject optimizely …``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from .....celery_app import current_app
from .....cli import optimizely
from .....cli.chosen_app import ChosenApp


class Command(BaseCommand):  # type: ignore[misc]
    """Everything but Django's own ``--settings`` and ``--pythonpath`` is for the commands."""

    help = "Look after the events on their way to Optimizely."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own way; `status` checks

    def run_from_argv(self, argv: list[str]) -> None:
        """As a program: prints, and exits with the command's code."""
        # ManagementUtility has obeyed these and leaves them in.
        django_own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        django_own.add_argument("--settings")
        django_own.add_argument("--pythonpath")
        _, arguments = django_own.parse_known_args(argv[2:])
        name = f"{argv[0].rsplit('/', 1)[-1]} {argv[1]}"
        optimizely.main(arguments, prog_name=name, obj=ChosenApp(current_app))

    def add_arguments(self, parser: Any) -> None:
        """For ``call_command("optimizely", "status", "--json")``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, arguments: list[str], **__: Any) -> None:
        """As a function: returns when the command exits with 0.

        Raises:
            CommandError: with the exit code as ``returncode``.
        """
        with contextlib.redirect_stdout(self.stdout), contextlib.redirect_stderr(self.stderr):
            try:
                optimizely.main(arguments, prog_name="optimizely", obj=ChosenApp(current_app))
            except SystemExit as exc:
                code = exc.code if isinstance(exc.code, int) else 1
        sys.stdout.flush()
        if code:
            raise CommandError(f"it ended with code {code}", returncode=code)
