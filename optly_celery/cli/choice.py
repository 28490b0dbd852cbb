"""Dead letters on the command line: options that filter them, and words that count them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from ..dead_letters.letter import Filter
from ..event.printable import printable

_MOST_REASONS = 20
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def age(text: str) -> float:
    """Seconds, given as a number and a unit: ``90s``, ``15m``, ``12h``, ``3d``.

    Raises:
        BadParameter: it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])", text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no age: 90s, 15m, 12h and 3d are.")
    return float(found[1]) * _UNITS_S[found[2]]


FILTERS = (
    click.Option(["--reason"], help="Only with this reason, such as http_400."),
    click.Option(["--status"], type=click.IntRange(100, 599), help="Only with this HTTP status."),
    click.Option(["--older-than", "older_than_s"], type=age, metavar="AGE",
                 help="Only what has not failed since then: 90s, 15m, 12h or 3d ago."),
    click.Option(["--newer-than", "newer_than_s"], type=age, metavar="AGE",
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


def by_reason(counts: Mapping[str, int]) -> str:
    """``http_400: 2, http_413: 1``; of many reasons, which somebody has made up, the first."""
    most = Counter(counts).most_common()
    shown = [f"{printable(reason)}: {count:,}" for reason, count in most[:_MOST_REASONS]]
    if others := most[_MOST_REASONS:]:
        shown.append(f"{len(others):,} other reasons: {sum(n for _, n in others):,}")
    return ", ".join(shown)
