"""Billiard's copies of tracebacks, and what of them is shared."""

from __future__ import annotations

import pickle
import traceback

import pytest
from billiard import einfo

from optly_celery.worker.tuning.tracebacks import share_copies


@pytest.fixture
def sharing(monkeypatch):
    """Billiard as a worker has it, for one test."""
    monkeypatch.setattr(einfo._Frame, "Code", einfo._Code)
    share_copies()


def failure():
    try:
        return int("why")
    except ValueError:
        return einfo.ExceptionInfo()


def test_billiard_can_be_told_to_share():
    """A name of its own that is not documented: a release without it shows here."""
    assert einfo._Frame.Code is einfo._Code


def test_two_failures_of_one_function_share_its_code(sharing):
    """A thousand failures of one kind hold one copy of the code in memory, not a thousand."""
    first, second = failure(), failure()
    assert first.tb.tb_frame is not second.tb.tb_frame
    assert first.tb.tb_frame.f_code is second.tb.tb_frame.f_code


def test_a_copy_is_as_good_as_before(sharing):
    """It can be printed, and sent from a pool's child to its parent."""
    found = pickle.loads(pickle.dumps(failure()))  # noqa: S301 - its own
    assert "why" in found.traceback
    assert [entry.name for entry in traceback.extract_tb(found.tb)] == ["failure"]


def test_it_may_be_asked_for_twice(sharing):
    """Setting up a second app in one process changes nothing."""
    share_copies()
    assert failure().tb.tb_frame.f_code is failure().tb.tb_frame.f_code
