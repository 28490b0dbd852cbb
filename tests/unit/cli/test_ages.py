"""Ages on the command line."""

from __future__ import annotations

import click
import pytest

from optly_celery.cli.choice import age


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("3d", 259_200), ("1.5h", 5400), ("0s", 0)],
)
def test_an_age_is_a_number_and_a_unit(text, seconds):
    """Seconds come out."""
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "d", "-3d", "3 d x", "3w", "1e3s", "٣d", "h3", "3d12h"])
def test_anything_else_is_refused_with_what_is_allowed(text):
    """A guess could purge the wrong letters."""
    with pytest.raises(click.BadParameter, match="is no age: 90s, 15m, 12h and 3d are"):
        age(text)
