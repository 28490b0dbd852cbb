"""The app, its outbox and the broker fail in turn; no event that was handed over is lost.

Events are counted by uuid in the broker's queue. What a process leaves in its file is relayed by
the next one that uses the directory, as in production.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from optly_celery.event.payload import uuids_of

from ..queued import queued
from ..support import Broker, eventually, stays

EVENTS = 2_000
LIMIT_S = 0.5 + 3.5  # optly_publish_timeout, and what a busy machine may add
ROOT = Path(__file__).parents[2]


@pytest.fixture
def apps(tmp_path):
    """Start app processes on one outbox directory."""
    started = []

    def start(broker_url, prefix, how, *, delivery, events=EVENTS, **settings):
        env = os.environ | {
            "OPTLY_BROKER_URL": broker_url,
            "OPTLY_OUTBOX_DIR": str(tmp_path / "outbox"),
            "OPTLY_DELIVERY": delivery,
            **{f"OPTLY_{k.upper()}": str(v) for k, v in settings.items()},
        }
        app = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.outbox_app", prefix, str(events), how],
            env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(app)
        assert app.stdout.readline() == "begin\n"
        return app

    yield start
    for app in started:
        app.kill()
        app.communicate()


def said(app):
    """The next line of an app, which is its account."""
    return json.loads(app.stdout.readline())


def balances(account):
    return account["accepted"] == sum(
        (account["published"], account["stored"], *account["dropped"].values())
    )


def uuids_in(broker: Broker) -> Counter[str]:
    """The uuids of all events in the queue, each as often as it is there."""
    return Counter(uuid for params in queued(broker) for uuid in uuids_of(params))


def expected(prefix, events=EVENTS):
    return {f"{prefix}-{number}" for number in range(events)}


def all_arrive(broker, *prefixes, events=EVENTS):
    """Wait for every event; return how many came more than once."""
    wanted = set().union(*(expected(prefix, events) for prefix in prefixes))
    eventually(lambda: not wanted - set(uuids_in(broker)), timeout_s=60, what="every uuid")
    found = uuids_in(broker)
    assert set(found) - wanted <= {"rescue-0"}
    return sum(found.values()) - len(found)


def rescue(apps, broker_url):
    """Another process of the same app, which adopts what the dead have left."""
    return apps(broker_url, "rescue", "close", delivery="outbox", events=1)


def persistent(tmp_path):
    directory = tmp_path / "broker"
    directory.mkdir()
    return Broker(directory, appendonly="yes", appendfsync="always")


@pytest.fixture
def kept_broker(tmp_path):
    """A broker that keeps what it has over a SIGKILL."""
    broker = persistent(tmp_path)
    yield broker
    broker.stop()


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_app_killed_the_instant_after_the_last_dispatch(own_broker, apps, delivery):
    """Promise 2: handed over means kept, at the next instruction already."""
    app = apps(own_broker.url, "a", "kill", delivery=delivery)
    account = said(app)
    assert app.wait(30) == -signal.SIGKILL
    assert balances(account)
    assert account["dropped"] == {}

    rescue(apps, own_broker.url)

    all_arrive(own_broker, "a")


def test_app_killed_while_the_relay_publishes(own_broker, apps, tmp_path):
    """Rows are settled only after the broker has them: a kill duplicates, and loses nothing."""
    app = apps(own_broker.url, "a", "hold", delivery="outbox", batch_events=1, events=20_000)
    eventually(lambda: own_broker.client().llen("optimizely") > 2_000)
    app.kill()
    app.wait(30)
    before = uuids_in(own_broker)
    left = sum(1 for _ in (tmp_path / "outbox").rglob("*.outbox"))
    assert (left, len(before) < 20_000) == (1, True)

    rescue(apps, own_broker.url)

    eventually(lambda: not list((tmp_path / "outbox").rglob(f"{app.pid}-*.outbox")))
    found = uuids_in(own_broker)
    handed_over = set(found) - {"rescue-0"}
    # Dispatched one after the other, so what was handed over has no gap before its last event.
    assert handed_over == expected("a", len(handed_over))
    assert len(handed_over) > EVENTS
    assert set(before) <= set(found)


@pytest.mark.slow
def test_broker_killed_and_restarted_during_dispatch(kept_broker, apps):
    """With an append-only file, what was published before is there, and the rest follows."""
    app = apps(kept_broker.url, "a", "close", delivery="direct", events=6_000)
    eventually(lambda: kept_broker.client().llen("optimizely") > 200)
    kept_broker.kill()
    kept_broker.start()
    account = said(app)
    assert balances(account)
    assert account["dropped"] == {}

    app.stdin.write("\n")
    app.stdin.flush()

    all_arrive(kept_broker, "a", events=6_000)


@pytest.mark.slow
@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_broker_frozen_for_20_seconds(own_broker, apps, delivery):
    """A hung broker holds up one call by the publish timeout, and no other."""
    own_broker.freeze()
    frozen_at = time.monotonic()
    app = apps(own_broker.url, "a", "close", delivery=delivery)
    account = said(app)
    assert balances(account)
    assert account["dropped"] == {}
    assert account["stored"] == EVENTS
    assert account["longest_s"] < LIMIT_S
    stays(lambda: app.poll() is None, for_s=20 - (time.monotonic() - frozen_at))
    own_broker.thaw()

    all_arrive(own_broker, "a")

    app.stdin.write("\n")
    app.stdin.flush()
    assert said(app)["outbox"]["rows"] == 0


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_broker_out_of_memory(own_broker, apps, delivery):
    """A full broker refuses; the events wait, and follow when there is room."""
    client = own_broker.client()
    client.config_set("maxmemory", 1)
    app = apps(own_broker.url, "a", "close", delivery=delivery)
    account = said(app)
    assert (account["stored"], account["dropped"]) == (EVENTS, {})
    client.config_set("maxmemory", 0)

    all_arrive(own_broker, "a")
    assert app.poll() is None


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_broker_away_at_the_start(own_broker, apps, delivery):
    """An app may start before its broker."""
    own_broker.stop()
    app = apps(own_broker.url, "a", "close", delivery=delivery)
    account = said(app)
    assert (account["stored"], account["dropped"]) == (EVENTS, {})
    own_broker.start()

    all_arrive(own_broker, "a")
    assert app.poll() is None


def test_fork_after_first_use(own_broker, apps):
    """Parent and child each have an outbox, a relay and counters of their own."""
    app = apps(own_broker.url, "a", "fork", delivery="outbox")
    said(app)
    accounts = [said(app), said(app)]
    assert sorted(account["accepted"] for account in accounts) == [EVENTS, 2 * EVENTS]
    assert app.wait(60) == 0

    duplicates = all_arrive(own_broker, "a", "a-parent", "a-child")

    assert duplicates == 0


def test_eight_processes_share_a_directory(own_broker, apps):
    """Half of them are killed; the living relay for the dead, and nobody twice."""
    prefixes = [f"p{number}" for number in range(8)]
    running = [
        apps(own_broker.url, prefix, "kill" if number % 2 else "close", delivery="outbox")
        for number, prefix in enumerate(prefixes)
    ]
    for app in running:
        assert balances(said(app))

    all_arrive(own_broker, *prefixes)


def test_normal_exit_without_close(own_broker, apps):
    """The exit hook relays what waits, within its limit; no other process is needed."""
    app = apps(own_broker.url, "a", "exit", delivery="outbox")
    assert said(app)["stored"] == EVENTS
    assert app.wait(30) == 0

    assert all_arrive(own_broker, "a") == 0


def test_a_disk_that_fills_drops_by_count_and_keeps_the_rest(own_broker, tmp_path):
    """A file size limit stands for the full disk, with the broker away: stored or counted."""
    own_broker.stop()
    env = os.environ | {
        "OPTLY_BROKER_URL": own_broker.url,
        "OPTLY_OUTBOX_DIR": str(tmp_path / "outbox"),
        "OPTLY_DELIVERY": "outbox",
    }
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000));"
        f"import sys; sys.argv = ['app', 'a', '{EVENTS}', 'kill'];"
        "from tests.faults.outbox_app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    account = json.loads(done.stdout.splitlines()[1])
    assert balances(account)
    dropped = sum(account["dropped"].values())
    assert 0 < account["stored"] < EVENTS
    assert account["stored"] + dropped == EVENTS
    own_broker.start()

    rescued = subprocess.run(
        [sys.executable, "-m", "tests.faults.outbox_app", "rescue", "1", "exit"],
        env=env, cwd=ROOT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip

    assert rescued.returncode == 0
    eventually(lambda: len(set(uuids_in(own_broker)) - {"rescue-0"}) == account["stored"])
