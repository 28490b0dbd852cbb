"""A signal to end at once waits for the loop, and not for ever."""

from __future__ import annotations

import logging
import os
import signal
import sys

import pytest
from celery.worker import state

from optly_celery.worker import told_to_end
from optly_celery.worker.told_to_end import _Later, between_turns

from ...support import eventually
from .doubles import Consumer, an_app


@pytest.fixture
def consumer(monkeypatch):
    monkeypatch.setattr(state, "should_stop", None)
    monkeypatch.setattr(told_to_end, "between_turns", lambda _consumer: None)
    return Consumer(an_app())


def handler(consumer, name="worker_Cold"):
    """Ours over one of Celery's of this name, and how often that one was called."""
    calls = []

    def theirs(number, _frame):
        calls.append(number)

    theirs.__name__ = name
    return _Later(consumer, signal.SIGQUIT, theirs), calls


def test_the_loop_obeys_it_once_however_often_it_is_said(consumer):
    """A second one within the loop's time changes nothing."""
    later, calls = handler(consumer)
    for _ in range(3):
        later(signal.SIGQUIT, sys._getframe())
    assert calls == []

    eventually(lambda: consumer._soon)
    consumer.turn()
    later(signal.SIGQUIT, None)

    assert calls == [signal.SIGQUIT]


def test_a_loop_that_does_not_turn_is_not_waited_for(consumer, monkeypatch):
    """The signal is sent again, until it is obeyed where it is heard."""
    sent = []
    monkeypatch.setattr(told_to_end, "_LOOP_S", 0.05)
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
    later, calls = handler(consumer)
    later(signal.SIGQUIT, None)

    eventually(lambda: sent)
    assert sent[0] == (os.getpid(), signal.SIGQUIT)
    later(signal.SIGQUIT, None)

    assert calls == [signal.SIGQUIT]


def test_what_waits_for_no_thread_is_obeyed_at_once(consumer):
    """A warm shutdown takes note, and that is all."""
    later, calls = handler(consumer, "worker_Warm")

    later(signal.SIGQUIT, None)

    assert calls == [signal.SIGQUIT]


def test_in_a_log_line_it_waits_also_when_the_loop_has_ended(consumer, monkeypatch):
    """It is said again, and obeyed once the line is written."""
    monkeypatch.setattr(state, "should_stop", 0)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    later, calls = handler(consumer)
    seen = []

    class Handler(logging.Handler):
        def emit(self, _record):
            later(signal.SIGQUIT, sys._getframe())
            seen.append(list(calls))

    Handler().handle(logging.makeLogRecord({"msg": "a line"}))
    assert seen == [[]]

    later(signal.SIGQUIT, sys._getframe())

    assert calls == [signal.SIGQUIT]


def test_a_child_of_a_pool_leaves_it_to_celery(consumer):
    """It has the handler by inheritance, and no loop."""
    later, calls = handler(consumer)
    later._pid = -1

    later(signal.SIGQUIT, None)

    assert calls == [signal.SIGQUIT]


def test_a_worker_that_is_no_main_thread_has_no_signals(monkeypatch):
    """As one that a test of the user's runs in a thread of its own."""

    def refuse(*_):
        raise ValueError

    monkeypatch.setattr(signal, "getsignal", lambda _: print)
    monkeypatch.setattr(signal, "signal", refuse)

    assert between_turns(None) is None
