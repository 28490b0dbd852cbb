"""Python's own undocumented names."""

from __future__ import annotations

import sys

import pytest

from .borrowed import rows, takes

SEEN = "Python 3.11"


def _it_is_a_truth_value() -> None:
    assert isinstance(sys._is_gil_enabled(), bool)


ROWS = [
    *rows(
        "multiprocessing.util", where="runtime/process.py", seen=SEEN,
        gone="have the child's own code call close(): it ends without atexit",
        names={"": "children of multiprocessing end without atexit",
               "Finalize": ("called at their end", takes("multiprocessing.util:Finalize",
                                                         "obj", "callback", "exitpriority"))},
    ),
    *rows(
        "sys", where="worker/tuning/one_cpu.py", since="Python 3.13",
        seen="Python 3.13, by its documentation",
        gone="nothing: it is taken for a Python with the lock",
        names={"_is_gil_enabled": ("whether threads take turns", _it_is_a_truth_value)},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
