"""Django: the client that a setting's change makes anew."""

from __future__ import annotations

import pytest

from .borrowed import found, rows

SEEN = "Django 4.2.30, 5.2.19"


def _it_is_made_again() -> None:
    made: list[object] = []
    lazy = found("django.utils.functional:SimpleLazyObject")(lambda: made.append(1) or [])
    len(lazy)
    lazy._wrapped = found("django.utils.functional:empty")
    len(lazy)
    assert len(made) == 2


ROWS = [
    *rows(
        "django.utils.functional:LazyObject", where="contrib/django/options.py", seen=SEEN,
        gone="make a client object that asks `_made` at each look at an attribute",
        names={"_wrapped": ("a test's override_settings has it made again", _it_is_made_again)},
    ),
    *rows(
        "django.utils.functional", where="contrib/django/options.py", seen=SEEN,
        gone="as above", names={"empty": "not made yet", "SimpleLazyObject": "made when used"},
    ),
    *rows(
        "django.utils.functional", where="contrib/django/middleware.py", seen=SEEN,
        gone="a property of a class of our own",
        names={"SimpleLazyObject": "request.optimizely, made when used"},
    ),
    *rows(
        "django.db.backends.base.base:BaseDatabaseWrapper", where="contrib/django/on_commit.py",
        seen=SEEN, gone="transaction.get_connection(using).in_atomic_block, or get_autocommit",
        names={"in_atomic_block": "whether a transaction is open, without connecting"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
