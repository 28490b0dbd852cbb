"""A fork finds no lock held that the child would wait for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from optly_celery.enqueue.store import Store
from optly_celery.event.event import Event
from optly_celery.host.forks import _held, _watched
from optly_celery.settings import Settings

from ..support import US_URL, params_of

RELAYED = """
import sys
from optly_celery import dispatch, flush
from tests.support import US_URL, params_of

dispatch(US_URL, params_of())
before = set(sys.modules)
assert flush(30)
print(*sorted(set(sys.modules) - before))
"""


def test_the_relay_imports_nothing_once_events_are_dispatched(broker, tmp_path, monkeypatch):
    """A fork while another thread imports leaves the module locked in the child, for ever.

    One child in three of a pool hung at exit while the relay of its parent was importing kombu's
    transport. What is left is redis-py's own, a module of the standard library.
    """
    monkeypatch.setenv("OPTLY_BROKER_URL", broker.url)
    monkeypatch.setenv("OPTLY_DELIVERY", "outbox")
    monkeypatch.setenv("OPTLY_OUTBOX_DIR", str(tmp_path))
    monkeypatch.setenv("OPTLY_LINGER", "30")

    done = subprocess.run(
        [sys.executable, "-c", RELAYED], capture_output=True, text=True, check=True, timeout=60
    )

    assert set(done.stdout.split()) <= {"secrets"}
    assert broker.client().llen("optimizely") == 1


def test_a_fork_waits_for_the_relays_round(tmp_path):
    """A child of a pool hung at exit, since its parent's relay was connecting meanwhile."""
    relaying, go_on, ended = threading.Event(), threading.Event(), []

    class Slow:
        def publish_all(self, batches):
            relaying.set()
            go_on.wait(4)
            ended.append(len(list(batches)))

    store = Store(tmp_path, Slow(), Settings(linger=0, batch_events=10), on_relayed=lambda _: None)
    try:
        store.put(Event.of(US_URL, params_of()))
        assert relaying.wait(10)
        threading.Timer(0.3, go_on.set).start()
        child = os.fork()
        if not child:
            os._exit(0 if ended else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.relay.flush(5)
    finally:
        store.close(5)


def test_a_fork_leaves_the_parents_relay_to_the_parent(tmp_path):
    """There it goes on; the child holds nothing of it, nor would it wait for it when it forks."""
    store = Store(tmp_path, Quick(), Settings(linger=0, batch_events=10), on_relayed=lambda _: None)
    try:
        child = os.fork()
        if not child:
            os._exit(len(_watched) + len(_held))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not _held
        store.put(Event.of(US_URL, params_of()))
        assert store.relay.flush(5)
    finally:
        store.close(5)


class Quick:
    """Takes everything."""

    def publish_all(self, batches):
        list(batches)
