"""Ages on the command line: ``90s``, ``15m``, ``12h``, ``3d``."""

from __future__ import annotations

import re

import click

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Age(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Seconds, given as a number and a unit."""

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
