"""A broker in trouble, and no place for an outbox: the app does not notice, each loss is counted.

With an outbox nothing is lost: test_outbox_faults.py.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from optly_celery import dispatch_event, stats
from optly_celery.event.event import Event

from ..conftest import celery_app
from ..support import US_URL, Broker, free_port, params_of

BUSY_S = 3.5  # what a busy machine may add
# optly_publish_timeout and that. Without a limit of ours these faults take from 6 to over 40 s.
LIMIT_S = 0.5 + BUSY_S


@dataclass(frozen=True)
class Fault:
    """What happens to a broker, how it is mended, and what a drop by it is called."""

    name: str
    reason: str
    strike: Callable[[Broker], object]
    mend: Callable[[Broker], object]


def _configure(**values):
    def configure(broker):
        client = broker.client()
        for key, value in values.items():
            client.config_set(key.replace("_", "-"), value)

    return configure


def _follow_nobody(broker):
    """Make it a replica of a server that is not there: it keeps answering, read-only."""
    broker.client().execute_command("REPLICAOF", "127.0.0.1", str(free_port()))


def _lead(broker):
    broker.client().execute_command("REPLICAOF", "NO", "ONE")


def _admit(broker, password="hunter2"):  # noqa: S107
    """Let the app in with this password, and with no other."""
    user = ("ACL", "SETUSER", "shop", "on", "resetpass", f">{password}", "~*", "&*", "+@all")
    broker.client().execute_command(*user)


def _start(broker):
    broker.start()
    _admit(broker)


FAULTS = [
    Fault("refused", "broker_unreachable", Broker.kill, _start),
    Fault("frozen", "broker_timeout", Broker.freeze, Broker.thaw),
    Fault(
        "out of memory",
        "broker_out_of_memory",
        _configure(maxmemory_policy="noeviction", maxmemory=1),
        _configure(maxmemory=0),
    ),
    Fault("read-only", "broker_read_only", _follow_nobody, _lead),
]
LOCKED = Fault("locked", "broker_refused", lambda broker: _admit(broker, "other"), _admit)


@pytest.fixture(autouse=True)
def _nowhere_to_store(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")


@pytest.fixture
def shop(own_broker):
    """An app with a password of its own for the broker."""
    _admit(own_broker)
    with celery_app(f"redis://shop:hunter2@127.0.0.1:{own_broker.port}/0") as app:
        yield app


def _named(fault):
    return fault.name


@pytest.mark.parametrize("fault", [*FAULTS, LOCKED], ids=_named)
def test_a_broker_broken_from_the_start_is_a_counted_drop_in_time(shop, own_broker, fault):
    """The very first dispatch of a process meets the fault; the next after it is published."""
    fault.strike(own_broker)
    took_s = _dispatch("during")
    fault.mend(own_broker)
    _dispatch("after")

    assert took_s < LIMIT_S
    assert stats()["dropped"] == {fault.reason: 1}
    assert stats()["published"] == 1
    assert "after" in _queued(own_broker)


@pytest.mark.parametrize("fault", FAULTS, ids=_named)
def test_a_broker_that_breaks_later_is_a_counted_drop_in_time(shop, own_broker, fault):
    """Under a connection that was good a moment ago; afterwards all is well by itself."""
    _dispatch("before")
    fault.strike(own_broker)
    took_s = [_dispatch("during") for _ in range(2)]
    fault.mend(own_broker)
    _dispatch("after")

    assert max(took_s) < LIMIT_S
    assert stats()["dropped"] == {fault.reason: 2}
    assert stats()["published"] == 2
    assert "after" in _queued(own_broker)


def test_a_port_that_accepts_and_never_answers_is_a_counted_drop_in_time(own_broker):
    """A load balancer in front of nothing, for example."""
    own_broker.kill()
    with celery_app(own_broker.url):
        with socket.create_server(("127.0.0.1", own_broker.port), reuse_port=False):
            took_s = _dispatch("during")
        own_broker.start()
        _dispatch("after")

    assert took_s < LIMIT_S
    assert stats()["dropped"] == {"broker_timeout": 1}
    assert _queued(own_broker) == {"after"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead")
def test_a_host_that_does_not_answer_at_all_is_a_counted_drop_in_time():
    """Its packets are lost: nothing is refused, and no connection comes about either."""
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(4):  # the line is full; who comes now waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        with celery_app(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
            took_s = _dispatch("during")

    assert took_s < LIMIT_S
    assert stats()["dropped"] == {"broker_timeout": 1}


@pytest.mark.parametrize("publish_timeout", [0.1, 2.0])
def test_the_limit_is_the_settings(own_broker, publish_timeout):
    """``optly_publish_timeout``: no longer, and as long as it says before an event is lost."""
    with celery_app(own_broker.url, optly_publish_timeout=publish_timeout):
        own_broker.freeze()
        took_s = _dispatch("during")
        own_broker.thaw()

    assert publish_timeout / 2 <= took_s < publish_timeout + BUSY_S
    assert stats()["dropped"] == {"broker_timeout": 1}


def test_a_slow_broker_is_not_a_broken_one(own_broker):
    """An answer within the limit is an answer."""
    with celery_app(own_broker.url, optly_publish_timeout=10.0):
        _dispatch("before")
        own_broker.freeze()
        thaw = threading.Timer(0.3, own_broker.thaw)
        thaw.start()
        _dispatch("during")
        thaw.join()

    assert stats()["dropped"] == {}
    assert _queued(own_broker) == {"before", "during"}


@pytest.mark.parametrize("restarts", [1, 3])
def test_no_event_is_dropped_after_a_restart_with_an_idle_connection(own_broker, restarts):
    """The connection is dead and nobody has noticed yet: the next dispatch opens another."""
    with celery_app(own_broker.url):
        for n in range(restarts):
            _dispatch(f"before {n}")
            own_broker.kill()
            own_broker.start()
        _dispatch("after")

    assert stats()["dropped"] == {}
    assert "after" in _queued(own_broker)


def test_all_idle_connections_outlive_a_restart(own_broker):
    """Not only the one that is tried first: threads may hold many."""
    together = threading.Barrier(4)
    with celery_app(own_broker.url) as app:

        def work(name):
            app.set_current()
            for n in range(5):
                together.wait()
                _dispatch(f"{name} {n}")

        _in_threads(4, work)
        own_broker.kill()
        own_broker.start()
        _in_threads(4, work)

    assert stats()["dropped"] == {}
    assert stats()["published"] == 40


def test_threads_do_not_wait_for_each_other(own_broker):
    """With a hung broker each waits for its own limit, not for the sum of all."""
    with celery_app(own_broker.url) as app:
        own_broker.freeze()
        took_s = []

        def work(name):
            app.set_current()
            took_s.append(_dispatch(str(name)))

        _in_threads(8, work)
        own_broker.thaw()

    assert max(took_s) < LIMIT_S
    assert stats()["dropped"] == {"broker_timeout": 8}


def test_connections_do_not_pile_up_in_an_outage(own_broker):
    """What failed is closed: a long outage costs neither sockets nor memory."""
    with celery_app(own_broker.url):
        _dispatch("before")
        before = len(own_broker.client().client_list())
        _configure(maxmemory_policy="noeviction", maxmemory=1)(own_broker)
        for _ in range(20):
            _dispatch("during")
        _configure(maxmemory=0)(own_broker)
        _dispatch("after")

        assert len(own_broker.client().client_list()) <= before + 1
    assert stats()["dropped"] == {"broker_out_of_memory": 20}


@pytest.mark.parametrize("fault", [*FAULTS, LOCKED], ids=_named)
def test_no_word_of_event_or_password_is_in_the_log_of_an_outage(shop, own_broker, caplog, fault):
    """What kombu and redis-py say quotes both; what we say names the reason, once."""
    fault.strike(own_broker)
    _dispatch("ann")
    _dispatch("ann")
    fault.mend(own_broker)

    ours = [r for r in caplog.records if r.name == "optly_celery.event_dispatcher"]
    assert [fault.reason in record.message for record in ours] == [True]
    assert not [secret for secret in ("ann", "hunter2") if secret in caplog.text]


def _dispatch(visitor):
    """Dispatch one event as the SDK does; how long that took, in seconds."""
    event = Event.of(US_URL, params_of(visitor))
    begun = time.monotonic()
    dispatch_event(_LogEvent(event))
    return time.monotonic() - begun


class _LogEvent:
    def __init__(self, event):
        self.url, self.params = event.url, event.params
        self.http_verb, self.headers = "POST", {"Content-Type": "application/json"}


def _queued(broker):
    """Whose events are in the queue."""
    bodies = (json.loads(raw)["body"] for raw in broker.client().lrange("optimizely", 0, -1))
    params = (json.loads(base64.b64decode(body))[0][2] for body in bodies)
    return {visitor["visitor_id"] for each in params for visitor in each["visitors"]}


def _in_threads(count, work):
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
