"""A thread that works when it is woken."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from optly_celery.host.periodic import Periodic

from ...support import eventually


def test_once_stopped_it_never_starts():
    """An event that comes while a process ends finds nobody, rather than a thread it waits for."""
    thread, calls = Periodic(lambda: calls.append(1) or 60.0, name="tested"), []

    assert thread.stop(0)

    assert thread.wake() is False
    assert not [t for t in threading.enumerate() if t.name == "tested"]
    assert calls == []


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_fault_ends_no_thread_and_is_not_repeated_in_a_hurry(monkeypatch, caplog, error):
    """However often it is woken meanwhile, there is one line in the log for each wait."""
    monkeypatch.setattr(sys.modules[Periodic.__module__], "_AFTER_ERROR_S", 0.3)
    calls = []

    def work():
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise error
        return 60.0

    thread = Periodic(work, name="tested")
    try:
        assert thread.wake()
        eventually(lambda: calls)
        assert thread.wake()
        eventually(lambda: len(calls) == 2)
    finally:
        assert thread.stop(30)

    assert calls[1] - calls[0] >= 0.3
    assert caplog.text.count("unexpected error") == 1
