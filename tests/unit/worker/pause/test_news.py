"""What a worker says of its pauses, and to whom."""

from __future__ import annotations

import logging

import pytest

from optly_celery import signals
from optly_celery.worker.pause.ended import Ended
from optly_celery.worker.pause.news import report, tell
from optly_celery.worker.pause.policy import Change, Pauses

HOST = "logx.optimizely.com"


@pytest.fixture
def listen():
    """Have a receiver called for the length of the test: ``listen(signal, receiver)``."""
    connected = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.mark.parametrize(("paused", "word"), [(True, "paused"), (False, "resumed")])
def test_a_change_is_a_line_a_signal_and_an_event(paused, word, caplog, listen):
    """A person, a program and a monitor learn the same of it, each in its way."""
    caplog.set_level(logging.WARNING)
    heard = []
    for name in ("paused", "resumed"):
        listen(
            getattr(signals, name),
            lambda host, reason, name=name, **_: heard.append((name, host, reason)),
        )

    kind, told = tell(Change(HOST, paused, "http_503"))

    assert heard == [(word, HOST, "http_503")]
    assert kind == f"worker-optimizely-{word}"
    assert told == {"host": HOST, "reason": "http_503"}
    assert [r.name for r in caplog.records] == ["optly_celery.worker.pause.news"]


def test_a_receiver_that_raises_is_nobody_else_s_trouble(listen):
    """It is called in the worker's loop, which somebody's error must not end."""

    def broken(**_):
        raise KeyError

    listen(signals.paused, broken)

    kind, _ = tell(Change(HOST, True, "http_503"))

    assert kind == "worker-optimizely-paused"


def test_a_report_names_hosts_in_trouble_alone():
    """In the order of their names, each with its reason and how far it is."""
    now = [0.0]
    pauses = Pauses(after=1, longest_s=300.0, clock=lambda: now[0], rand=lambda: 1.0)
    for host in ("b", "a", "well"):
        pauses.admit(host, "e")
    pauses.ended("b", "e", Ended.FAILED, "http_503")
    pauses.ended("a", "e", Ended.FAILED, "timeout")
    now[0] += 1.0
    pauses.admit("a", "probe")
    pauses.ended("a", "probe", Ended.ANSWERED)

    told = report(pauses, "queue", wanted=False)

    assert told == [
        {"host": "a", "reason": "timeout", "state": "resuming", "queue": "queue", "wanted": False},
        {"host": "b", "reason": "http_503", "state": "paused", "queue": "queue", "wanted": False},
    ]


def test_with_nothing_in_trouble_there_is_nothing_to_report():
    """`status` then says that deliveries flow."""
    pauses = Pauses(after=1, longest_s=300.0, clock=lambda: 0.0)
    pauses.admit(HOST, "e")

    assert report(pauses, "queue", wanted=True) == []
