"""`create_client`: the SDK's client, built on first use, in each process that uses it."""

from __future__ import annotations

import copy
import functools
import http.server
import inspect
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import _state
from optimizely.config_manager import PollingConfigManager, StaticConfigManager
from optimizely.event.event_processor import BatchEventProcessor, ForwardingEventProcessor
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely

import optly_celery
from optly_celery import EventDispatcher, EventProcessor, create_client, stats
from optly_celery.runtime import process as runtime
from optly_celery.sdk import client as client_module

from ..queued import queued, queued_visitors
from ..support import free_port

DATAFILE = (Path(__file__).parents[1] / "sdk" / "datafile.json").read_text()
ROOT = Path(__file__).parents[2]
LOG_EVENT = "LOG_EVENT:log_event"

# SDK 3 and 4 start their thread so; they close nothing, so it lives on.
pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")


class Recorder:
    """A dispatcher that notes visitors, and is built without any Celery."""

    def __init__(self):
        self.visitors = []

    def dispatch_event(self, event):
        self.visitors.append(event.params["visitors"][0]["visitor_id"])


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def client(recorder):
    made = create_client(datafile=DATAFILE, event_dispatcher=recorder)
    yield made
    made.close()


def is_built(client):
    return "built" in client._process


def in_fork(work):
    """Run something in a forked child; returns what it returned, as JSON has it."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.write(write, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(said)


# What it is


def test_it_is_the_sdks_client(client, recorder):
    """By type, by methods and by what they do."""
    assert isinstance(client, Optimizely)
    for name, method in inspect.getmembers(Optimizely, inspect.isfunction):
        if not name.startswith("__"):
            assert inspect.signature(getattr(client, name)) == inspect.signature(
                functools.partial(method, client) if name != "close" else client.close
            )

    assert client.is_valid
    assert client.activate("one_page", "v") == "on"
    assert client.create_user_context("v").decide("checkout").variation_key == "on"
    client.track("purchase", "v")
    assert recorder.visitors == ["v", "v", "v"]


def test_it_uses_our_processor_and_dispatcher_unless_told_otherwise(recorder):
    """``create_client`` is all that a shop needs, and replaces nothing that was handed to it."""
    ours = create_client(datafile=DATAFILE)
    theirs = create_client(datafile=DATAFILE, event_processor=ForwardingEventProcessor(recorder))

    assert isinstance(ours.event_processor, EventProcessor)
    assert ours.event_dispatcher is EventDispatcher
    assert ours.event_processor.notification_center is ours.notification_center
    assert isinstance(theirs.event_processor, ForwardingEventProcessor)


def test_each_option_of_the_sdk_reaches_it():
    """Whatever options the installed version has; one that is left out has the SDK's default."""
    profiles, center = object(), NotificationCenter()
    options = {
        "datafile": DATAFILE,
        "logger": None,
        "skip_json_validation": True,
        "user_profile_service": profiles,
        "notification_center": center,
        "default_decide_options": ["DISABLE_DECISION_EVENT"],
        "event_processor_options": {"batch_size": 7},
        "settings": None,
    }
    known = inspect.signature(Optimizely).parameters
    client = create_client(**{name: v for name, v in options.items() if name in known})

    assert client.decision_service.user_profile_service is profiles
    assert client.notification_center is center
    assert client.default_decide_options == ["DISABLE_DECISION_EVENT"]


def test_what_it_does_not_have_it_does_not_have(client):
    """The client stands for the SDK's own, down to the error that names what is missing."""
    with pytest.raises(AttributeError, match="no_such_thing"):
        client.no_such_thing  # noqa: B018


def test_a_copy_and_a_pickle_are_clients_of_their_own():
    """So a client may be handed to a spawned process."""
    client = create_client(datafile=DATAFILE, default_decide_options=["ENABLED_FLAGS_ONLY"])
    assert client.is_valid

    for other in (copy.copy(client), pickle.loads(pickle.dumps(client))):  # noqa: S301
        assert not is_built(other)
        assert other.default_decide_options == ["ENABLED_FLAGS_ONLY"]


# When it is built


def test_it_is_built_by_its_first_use_and_not_before(client):
    """Not by a listener that is added, nor by whoever looks at it from outside."""
    client.notification_center.add_notification_listener(LOG_EVENT, print)
    assert repr(client)
    assert client
    assert client != object()
    assert not hasattr(client, "__wrapped__")
    assert not isinstance(client, str)
    client.close()
    assert not is_built(client)

    assert client.is_valid
    assert is_built(client)


def test_threads_that_come_at_once_share_one(monkeypatch, recorder):
    """One is built, and nobody sees half of it."""
    built = []

    class Counted(Optimizely):
        def __init__(self, **options):
            built.append(self)
            super().__init__(**options)

    client = create_client(datafile=DATAFILE, event_dispatcher=recorder)
    monkeypatch.setattr(client_module, "Optimizely", Counted)
    all_here = threading.Barrier(16)

    def use(number):
        all_here.wait(20)
        client.track("purchase", f"v-{number}")
        return client.create_user_context("v").decide("checkout").variation_key

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that they do come in while it is built
    try:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(use, range(16))) == ["on"] * 16
    finally:
        sys.setswitchinterval(interval)
    assert len(built) == 1
    assert len(recorder.visitors) == 32


def test_what_it_is_built_from_cannot_use_it(recorder):
    """An endless circle otherwise; the SDK logs what a listener raises."""
    raised = []

    def use(*_):
        try:
            client.get_optimizely_config()
        except RuntimeError as exc:
            raised.append(exc)

    client = create_client(datafile=DATAFILE, event_dispatcher=recorder)
    client.notification_center.add_notification_listener("OPTIMIZELY_CONFIG_UPDATE", use)

    assert client.is_valid
    assert len(raised) == 1


def test_a_constructor_that_fails_is_tried_again(recorder):
    """For instance a config manager that needs what is not there yet."""
    attempts = []

    def factory():
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError
        return StaticConfigManager(DATAFILE)

    client = create_client(config_manager=factory, event_dispatcher=recorder)

    with pytest.raises(OSError):  # noqa: PT011
        client.is_valid  # noqa: B018
    assert client.is_valid


def test_a_patched_attribute_stays_patched(client, monkeypatch):
    """As apps' tests do it, before the first use and after."""
    monkeypatch.setattr(client, "track", lambda *_: "patched", raising=False)
    assert client.is_valid
    assert client.track("purchase", "v") == "patched"
    monkeypatch.undo()
    assert client.track("purchase", "v") is None


# Wrong options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"datafle": DATAFILE}, "did you mean datafile"),
        ({"colour": 1}, "it knows datafile"),
        ({}, "needs a datafile, an sdk_key or a config_manager"),
        ({"datafile": None, "sdk_key": None}, "needs a datafile"),
        ({"datafile": json.loads(DATAFILE)}, "JSON text"),
        ({"datafile": DATAFILE, "event_dispatcher": object()}, "event_dispatcher"),
        ({"datafile": DATAFILE, "error_handler": object()}, "error_handler"),
        ({"datafile": DATAFILE, "logger": "info"}, "logger"),
        ({"datafile": DATAFILE, "notification_center": object()}, "notification_center"),
        ({"datafile": DATAFILE, "event_processor": 7}, "event_processor"),
        ({"config_manager": "http://x"}, "config_manager"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_option_is_said_when_it_is_given(options, says):
    """The SDK would log a line, return a client, and decide nothing from then on."""
    with pytest.raises(TypeError, match=says):
        create_client(**options)


def test_without_the_sdk_it_says_what_to_install():
    """The error is an instruction; the dispatcher alone is there without the SDK."""
    code = (
        "import sys; sys.modules['optimizely'] = None\n"
        "import optly_celery\n"
        "optly_celery.dispatch_event\n"
        "for name in ('create_client', 'EventProcessor'):\n"
        "    try: getattr(optly_celery, name)\n"
        "    except ImportError as exc: print(exc)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.count("pip install optimizely-sdk") == 2


# Forks


def test_a_forked_child_builds_its_own(client):
    """And answers, while the parent keeps what it had; a user context goes along."""
    assert client.is_valid
    user = client.create_user_context("v")
    before = client._process["built"]

    def child():
        had = is_built(client)
        user.track_event("purchase")
        return [had, is_built(client), client._process["built"] is before]

    assert in_fork(child) == [False, True, False]
    assert client._process["built"] is before


def test_listeners_hear_in_a_forked_child_too(client):
    """Connected before a server forks, they hear in each process of that process's events."""
    heard = []
    client.notification_center.add_notification_listener(LOG_EVENT, heard.append)
    client.track("purchase", "parent")

    def child():
        client.track("purchase", "child")
        return len(heard)

    assert in_fork(child) == 2
    assert len(heard) == 1


def test_a_fork_while_another_thread_builds_is_no_deadlock(monkeypatch, recorder):
    """The child's lock is its own, and new."""
    building, go_on = threading.Event(), threading.Event()

    class Stuck(Optimizely):
        def __init__(self, **options):
            building.set()
            go_on.wait(30)
            super().__init__(**options)

    client = create_client(datafile=DATAFILE, event_dispatcher=recorder)
    monkeypatch.setattr(client_module, "Optimizely", Stuck)
    thread = threading.Thread(target=lambda: client.is_valid)
    thread.start()
    assert building.wait(10)

    def child():
        go_on.set()
        return client.is_valid

    try:
        assert in_fork(child) is True
    finally:
        go_on.set()
        thread.join(10)


def test_a_live_processor_in_a_forked_child_is_pointed_out(caplog):
    """Its thread is the parent's. The child's end does not wait for it, either."""
    live = BatchEventProcessor(EventDispatcher, start_on_init=True)
    client = create_client(datafile=DATAFILE, event_processor=live)
    assert client.is_valid
    assert not caplog.records

    def child():
        caplog.clear()
        for number in range(1500):
            client.track("purchase", f"v-{number}")
        client.close()
        return [r.getMessage() for r in caplog.records if r.name == "optly_celery.sdk.client"]

    (said,) = in_fork(child)
    assert "event_processor" in said
    live.stop()


@pytest.mark.parametrize("kind", ["function", "class", "partial"])
def test_a_function_makes_a_processor_or_a_config_manager_in_each_process(kind, recorder):
    """With those of the client's parts that it takes."""
    made = {
        "function": lambda notification_center: StaticConfigManager(
            DATAFILE, notification_center=notification_center
        ),
        "class": StaticConfigManager,
        "partial": functools.partial(StaticConfigManager, DATAFILE),
    }[kind]
    client = create_client(
        datafile=DATAFILE,
        config_manager=made,
        event_processor=lambda: ForwardingEventProcessor(recorder),
    )

    assert client.config_manager.notification_center is client.notification_center
    client.track("purchase", "v")
    assert recorder.visitors == (["v"] if kind != "class" else [])


@pytest.mark.parametrize("how", ["fork", "multiprocessing-fork", "multiprocessing-spawn"])
@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_parent_and_child_dispatch_and_their_exits_leave_nothing(broker, tmp_path, how, delivery):
    """The client is used before the fork, as under a server that preloads; nobody calls close."""
    said = _run(broker.url, how, tmp_path, delivery)

    expected = {"parent", "child"} | ({"parent again"} if how == "fork" else set())
    assert {line["who"] for line in said} == expected
    assert all(line["heard"] for line in said)
    assert queued_visitors(broker) == sorted(expected)


# The datafile


class DatafileServer:
    """Serves the datafile with a revision that a test can change."""

    def __init__(self):
        self.revision = "1"
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                body = json.dumps({**json.loads(DATAFILE), "revision": outer.revision}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/datafile.json"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def datafile_server():
    with DatafileServer() as server:
        yield server


def test_an_sdk_key_is_all_it_takes(datafile_server, monkeypatch, recorder):
    """The SDK's own polling, asked for by its own option."""
    monkeypatch.setattr(PollingConfigManager, "DATAFILE_URL_TEMPLATE", datafile_server.url)
    client = create_client(sdk_key="sdk_key", event_dispatcher=recorder)
    assert datafile_server.requests == 0

    client.track("purchase", "v")

    assert recorder.visitors == ["v"]
    client.close()


def test_a_forked_child_polls_for_itself(datafile_server, broker, tmp_path):
    """A datafile that changes after the fork reaches parent and child."""
    arguments = [sys.executable, "-m", "tests.sdk.client_app", broker.url, "poll"]
    process = subprocess.Popen(
        [*arguments, datafile_server.url], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_env(tmp_path, "direct"),
    )  # fmt: skip
    try:
        process.stdout.readline()  # it has used its client
        for revision in ("2", "3"):
            datafile_server.revision = revision
            process.stdin.write(f"{revision}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"parent": revision, "child": revision}
        process.stdin.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def test_an_unreachable_datafile_raises_nothing(monkeypatch, recorder):
    """The SDK waits for it, up to its own limit, and then decides nothing."""
    url = f"http://127.0.0.1:{free_port()}/datafile.json"
    client = create_client(
        config_manager=functools.partial(PollingConfigManager, "k", url=url, blocking_timeout=0),
        event_dispatcher=recorder,
    )

    client.track("purchase", "v")

    assert recorder.visitors == []
    client.close()


# Its end


def test_close_flushes_and_goes_on_answering(app, broker, monkeypatch):
    """As the SDK's: what was given to it has left; a straggler is not turned away."""
    app.conf.optly_delivery = "outbox"
    client = create_client(datafile=DATAFILE)
    client.track("purchase", "v")

    client.close()

    assert len(queued(broker)) == 1
    assert stats()["outbox"]["rows"] == 0
    client.track("purchase", "straggler")
    client.close()
    assert len(queued(broker)) == 2


def test_exit_closes_what_was_built_before_the_outbox(app, broker, monkeypatch):
    """So that what a processor of the app's own still holds can be dispatched."""
    monkeypatch.setattr(_state, "default_app", app)  # as Celery() does, for all threads
    app.conf.optly_delivery = "outbox"
    client = create_client(
        datafile=DATAFILE,
        event_processor=lambda notification_center: BatchEventProcessor(
            EventDispatcher, batch_size=10, start_on_init=True,
            notification_center=notification_center,
        ),
    )  # fmt: skip
    unused = create_client(datafile=DATAFILE)
    client.track("purchase", "v")

    runtime._exit()

    assert len(queued(broker)) == 1
    assert not is_built(unused)
    assert not client.event_processor.is_running


def test_a_client_that_cannot_be_closed_keeps_no_other_from_it(caplog, recorder):
    """At exit each one is closed and each failure logged, whatever the one before it did."""

    class Broken(StaticConfigManager):
        def stop(self):
            raise OSError

    stopped = []

    class Whole(StaticConfigManager):
        def stop(self):
            stopped.append(1)

    clients = [
        create_client(config_manager=kind(DATAFILE), event_dispatcher=recorder)
        for kind in (Broken, Whole, Broken)
    ]
    assert all(client.is_valid for client in clients)

    with caplog.at_level(logging.ERROR):
        runtime._exit()

    assert stopped == [1]
    assert caplog.text.count("could not be closed") == 2


def test_a_client_that_nobody_holds_is_forgotten(recorder):
    """Making clients again and again, as tests do, fills no memory."""
    import gc
    import weakref

    gone = weakref.ref(create_client(datafile=DATAFILE, event_dispatcher=recorder))
    gc.collect()

    assert gone() is None


def test_importing_the_package_does_not_import_the_sdk():
    """A worker does without it, and an app pays for it when it makes a client."""
    code = "import sys, optly_celery; print('optimizely' in sys.modules, len(dir(optly_celery)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("False")
    assert {"create_client", "EventProcessor"} <= set(dir(optly_celery))


def _env(tmp_path, delivery):
    return os.environ | {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "DELIVERY": delivery,
    }


def _run(url, how, tmp_path, delivery):
    done = subprocess.run(
        [sys.executable, "-m", "tests.sdk.client_app", url, how],
        cwd=ROOT, capture_output=True, text=True, env=_env(tmp_path, delivery), timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_in_direct_mode_an_event_is_written_once_and_never_read(app, broker):
    """The SDK's own way writes it, reads it, and has a dispatcher write and read it again."""
    client = create_client(datafile=DATAFILE)
    client.track("purchase", "first")  # the form of an event is learnt from the first one
    calls = []

    def watch(frame, kind, _):
        if kind == "call" and "json" in frame.f_code.co_filename:
            calls.append((frame.f_code.co_name, type(frame.f_locals.get("o")).__name__))

    sys.setprofile(watch)
    try:
        client.track("purchase", "second")
    finally:
        sys.setprofile(None)

    assert queued_visitors(broker) == ["first", "second"]
    assert [name for name, _ in calls if "decode" in name or name == "loads"] == []
    assert calls.count(("encode", "Visitor")) == 1
    client.close()
