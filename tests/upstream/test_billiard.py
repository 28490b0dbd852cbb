"""billiard: what a prefork pool sends of an error, and its copies of tracebacks."""

from __future__ import annotations

import inspect

import pytest

from .borrowed import found, rows, says

SEEN = "billiard 4.3.2"


def _a_frame_takes_its_code_from_the_class() -> None:
    frame = found("billiard.einfo:_Frame")
    here = inspect.currentframe()
    assert isinstance(frame(here).f_code, frame.Code)


ROWS = [
    *rows(
        "billiard.einfo", where="worker/request.py", seen=SEEN,
        gone="see what exc_info.exception is in a prefork pool: the error itself is needed",
        names={"": "what a child sends", "ExceptionWithTraceback": (
            "an error as a child sends it",
            says("billiard.einfo:ExceptionWithTraceback.__init__", "self.exc = "))},
    ),
    *rows(
        "billiard.einfo", where="worker/tuning/tracebacks.py", seen=SEEN,
        gone="nothing: each failure then costs 0.3 MB of copies again",
        names={"": "copies of tracebacks",
               "_Frame": ("made of each frame", _a_frame_takes_its_code_from_the_class),
               "_Frame.Code": "made of its function"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
