"""Exit codes, and how an error becomes a sentence with one of them."""

from __future__ import annotations

from typing import Any

import click

from ..errors import DeadLetterError, NoSuchDeadLetterError, SettingsError
from ..event.printable import printable

OK = 0
FAILED = 1  # not healthy, or not all that was asked for was done
USAGE = 2  # an option or argument makes no sense; click's own code
UNREACHABLE = 3  # the broker or the dead letter store does not answer, or refuses
NOT_FOUND = 4  # no dead letter has the given id
CONFIG = 78  # a setting is wrong; sysexits.h calls it EX_CONFIG
INTERRUPTED = 130  # Ctrl-C, as a shell counts


class Failure(click.ClickException):
    """Ends the command with a sentence on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = exit_code  # type: ignore[misc, unused-ignore]


class CommandGroup(click.Group):
    """A group whose commands may raise this package's errors."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NoSuchDeadLetterError as exc:
            raise Failure(f"{exc}. `dead-letters list` shows what is kept.", NOT_FOUND) from None
        except DeadLetterError as exc:
            raise Failure(
                f"the dead letter store {exc}. Check that it runs, and that "
                "optly_dead_letter_url (by default the broker's URL) names it.",
                UNREACHABLE,
            ) from None
        except SettingsError as exc:
            raise Failure(str(exc), CONFIG) from None
