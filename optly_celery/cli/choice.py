"""Which dead letters a command is about: ids, or filters, or all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ..dead_letters.letter import DeadLetter, Filter
from ..dead_letters.store import DeadLetters
from .ages import Age

_Command = TypeVar("_Command", bound=Callable[..., Any])


def filters(command: _Command) -> _Command:
    """Give a command the options that `filter_of` reads."""
    for option in (
        click.option("--newer-than", "newer_than_s", type=Age(), metavar="AGE",
                     help="Only what has failed since then."),
        click.option("--older-than", "older_than_s", type=Age(), metavar="AGE",
                     help="Only what has not failed since then: 90s, 15m, 12h or 3d ago."),
        click.option("--status", type=click.IntRange(100, 599), help="Only with this HTTP status."),
        click.option("--reason", help="Only with this reason, such as http_400."),
    ):  # fmt: skip
        command = option(command)
    return command


def filter_of(
    *,
    reason: str | None,
    status: int | None,
    older_than_s: float | None,
    newer_than_s: float | None,
) -> Filter:
    """The filter that the options of `filters` mean.

    Raises:
        UsageError: nothing can be older and newer than they say.
    """
    if older_than_s is not None and newer_than_s is not None and older_than_s >= newer_than_s:
        raise click.UsageError(
            "Nothing is older than --older-than and newer than --newer-than: "
            "between 3 and 7 days ago is --older-than 3d --newer-than 7d."
        )
    return Filter(
        reason=reason, status=status, older_than_s=older_than_s, newer_than_s=newer_than_s
    )


@dataclass(frozen=True)
class Choice:
    """Letters that are to be replayed or purged, oldest failure first."""

    ids: list[str]
    reasons: Counter[str]
    missing: list[str]

    @property
    def text(self) -> str:
        """For example ``3 dead letters (http_400: 2, http_413: 1)``."""
        each = ", ".join(f"{reason}: {count:,}" for reason, count in self.reasons.most_common())
        return f"{counted(len(self.ids))} ({each})"


def choose(dead: DeadLetters, ids: tuple[str, ...], where: Filter, *, everything: bool) -> Choice:
    """Look the letters up.

    Raises:
        UsageError: nothing says which letters are meant, or two things do.
    """
    filtered = where != Filter()
    if (bool(ids), filtered, everything).count(True) != 1:
        raise click.UsageError(
            "Say which dead letters are meant: either ids, or filters such as --reason http_400, "
            "or --all."
        )
    letters: Iterable[DeadLetter] = dead.pick(list(dict.fromkeys(ids))) if ids else dead.list(where)
    found: list[str] = []
    reasons: Counter[str] = Counter()
    for letter in letters:
        found.append(letter.id)
        reasons[letter.reason] += 1
    known = set(found)
    return Choice(found, reasons, [letter_id for letter_id in ids if letter_id not in known])


def counted(number: int) -> str:
    """``1 dead letter``, ``1,200 dead letters``."""
    return f"{number:,} dead letter" if number == 1 else f"{number:,} dead letters"
