"""Which dead letters a command is about: ids, or filters, or all of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import click

from ..dead_letters.letter import Filter
from ..dead_letters.store import DeadLetters

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Age(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Seconds, given as a number and a unit: ``90s``, ``15m``, ``12h``, ``3d``."""

    name = "age"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no age: 90s, 15m, 12h and 3d are.", param, ctx)
        return float(found[1]) * _UNITS_S[found[2]]


FILTERS = (
    click.Option(["--reason"], help="Only with this reason, such as http_400."),
    click.Option(["--status"], type=click.IntRange(100, 599), help="Only with this HTTP status."),
    click.Option(["--older-than", "older_than_s"], type=Age(), metavar="AGE",
                 help="Only what has not failed since then: 90s, 15m, 12h or 3d ago."),
    click.Option(["--newer-than", "newer_than_s"], type=Age(), metavar="AGE",
                 help="Only what has failed since then."),
)  # fmt: skip
"""The options that `filter_of` reads."""


def filter_of(**options: Any) -> Filter:
    """The filter that the options of `FILTERS` mean.

    Raises:
        UsageError: nothing can be older and newer than they say.
    """
    where = Filter(**options)
    older, newer = where.older_than_s, where.newer_than_s
    if older is not None and newer is not None and older >= newer:
        raise click.UsageError(
            "Nothing is older than --older-than and newer than --newer-than: "
            "between 3 and 7 days ago is --older-than 3d --newer-than 7d."
        )
    return where


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
    if (bool(ids), where != Filter(), everything).count(True) != 1:
        raise click.UsageError(
            "Say which dead letters are meant: either ids, or filters such as --reason http_400, "
            "or --all."
        )
    letters = dead.pick(list(dict.fromkeys(ids))) if ids else dead.list(where)
    reasons = {letter.id: letter.reason for letter in letters}
    missing = [letter_id for letter_id in ids if letter_id not in reasons]
    return Choice(list(reasons), Counter(reasons.values()), missing)


def counted(number: int) -> str:
    """``1 dead letter``, ``1,200 dead letters``."""
    return f"{number:,} dead letter{'' if number == 1 else 's'}"
