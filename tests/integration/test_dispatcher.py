"""The dispatcher seam: from whatever the SDK hands over to a message in Redis, or to a count."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import types
from collections import namedtuple
from unittest.mock import MagicMock

import pytest
from celery import Celery
from optimizely.event.log_event import LogEvent

from optly_celery import EventDispatcher, dispatch, dispatch_event, stats
from optly_celery.dead_letters.store import DeadLetters
from optly_celery.event.event import Event

from ..conftest import celery_app
from ..support import US_URL, eventually, free_port, params_of

HEADERS = {"Content-Type": "application/json"}
PUBLISHED_ONE = {"accepted": 1, "published": 1, "dropped": {}, "refused": {}}


@pytest.mark.parametrize(
    "dispatcher",
    [EventDispatcher, EventDispatcher(), types.SimpleNamespace(dispatch_event=dispatch_event)],
)
def test_class_instance_and_function_all_dispatch(app, broker, dispatcher):
    """The SDK's example changes by one word, whichever way it is written."""
    dispatcher.dispatch_event(LogEvent(US_URL, params_of("ann"), "POST", HEADERS))

    (message,) = _messages(broker)
    assert message.args == [US_URL, "POST", params_of("ann")]
    assert _counts() == PUBLISHED_ONE


_OldEvent = namedtuple("_OldEvent", "url params http_verb headers")  # noqa: PYI024


@pytest.mark.parametrize(
    "event",
    [
        LogEvent(US_URL, params_of(), "POST", HEADERS),
        LogEvent(US_URL, params_of()),
        _OldEvent(US_URL, params_of(), "POST", HEADERS),
        types.SimpleNamespace(url=US_URL, params=params_of()),
        types.SimpleNamespace(url=US_URL, params=json.dumps(params_of()), http_verb="post"),
    ],
    ids=["5.x", "no verb", "3.10", "no headers", "text"],
)
def test_events_of_every_sdk_are_taken(app, broker, event):
    """Any object with url and params; without a verb it is a POST, as for the SDK."""
    dispatch_event(event)

    (message,) = _messages(broker)
    assert message.args == [US_URL, "POST", params_of()]
    assert message.kwargs == {"headers": getattr(event, "headers", None)}


def test_an_event_may_be_given_by_its_parts(app, broker):
    """Verb and headers as the SDK would give them."""
    dispatch(US_URL, {"a": "1"}, "GET", {"X-A": "b"})

    (message,) = _messages(broker)
    assert (message.args, message.kwargs) == (
        [US_URL, "GET", {"a": "1"}],
        {"headers": {"X-A": "b"}},
    )


def test_the_message_is_the_public_wire_format(app, broker):
    """A producer in another language writes the same, and a monitor shows no personal data."""
    event = Event.of(US_URL, params_of("ann", "u-1"), "POST", HEADERS)

    dispatch(US_URL, params_of("ann", "u-1"), "POST", HEADERS)

    (message,) = _messages(broker)
    assert message.args == [US_URL, "POST", params_of("ann", "u-1")]
    assert message.kwargs == {"headers": HEADERS}
    assert message.embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert (message.raw["content-type"], message.raw["content-encoding"]) == (
        "application/json", "utf-8",
    )  # fmt: skip
    headers = message.raw["headers"]
    assert headers["task"] == "optly_celery.deliver"
    assert headers["lang"] == "py"
    assert headers["id"] == headers["root_id"] == message.raw["properties"]["correlation_id"]
    assert headers["argsrepr"] == event.summary
    assert headers["kwargsrepr"] == "{}"
    assert (headers["retries"], headers["eta"], headers["expires"]) == (0, None, None)
    assert headers["ignore_result"] is True
    shown = json.dumps([headers, message.raw["properties"]])
    assert not [secret for secret in ("ann", "u-1", "secret of", "plan") if secret in shown]


def test_what_monitors_are_told_of_a_sent_task_holds_no_personal_data(broker):
    """With ``task_send_sent_event`` Celery tells Flower when a task is published."""
    with broker.client().pubsub(ignore_subscribe_messages=True) as monitor:
        monitor.psubscribe("*celeryev*")
        with celery_app(broker.url, task_send_sent_event=True):
            dispatch(US_URL, params_of("ann", "u-1"))
        heard = eventually(monitor.get_message)

    told = json.loads(base64.b64decode(json.loads(heard["data"])["body"]))
    assert (told["type"], told["name"]) == ("task-sent", "optly_celery.deliver")
    assert told["args"].startswith("POST logx.optimizely.com, project 111001, 1 event,")
    assert "ann" not in repr(told)


def test_the_queue_is_the_settings(broker):
    """``optly_queue``."""
    with celery_app(broker.url, optly_queue="events"):
        dispatch(US_URL, params_of())

    assert [len(_messages(broker, name)) for name in ("events", "optimizely")] == [1, 0]


def test_a_key_prefix_of_the_app_is_kept(broker):
    """Several apps may share one Redis by ``global_keyprefix``."""
    with celery_app(broker.url, broker_transport_options={"global_keyprefix": "shop-"}):
        dispatch(US_URL, params_of())

    assert len(_messages(broker, "shop-optimizely")) == 1


def test_a_message_of_a_producer_that_knows_nothing_of_us_is_delivered(
    broker, collector, make_worker
):
    """By name and arguments alone, without headers of ours."""
    stranger = Celery("stranger", broker=broker.url, set_as_current=False)
    stranger.send_task(
        "optly_celery.deliver", [US_URL, "POST", params_of("ann")], queue="optimizely"
    )
    stranger.close()
    make_worker(broker.url, url_override=collector.url)

    eventually(lambda: collector.received)

    assert collector.received[0].body == json.dumps(params_of("ann")).encode()


SECRET = "visitor " + "ann"  # not a literal: a traceback quotes the line that raises


class _Raises:
    """An event whose attributes raise, with personal data in the error."""

    def __getattr__(self, name):
        raise ValueError(SECRET, name)


class _Items(dict):
    def items(self):
        raise KeyError(SECRET)


class _Text(str):
    __slots__ = ()

    def strip(self, *_):
        raise RuntimeError(SECRET)

    upper = __hash__ = strip


def _cycle():
    params = params_of("ann")
    params["visitors"].append(params)
    return params


def _deep():
    value = params_of("ann")
    for _ in range(50_000):
        value = {"ann": value}
    return value


HOSTILE = [
    None,
    object(),
    7,
    "ann",
    [US_URL, params_of("ann")],
    MagicMock(),
    LogEvent,
    _Raises(),
    LogEvent(None, params_of("ann"), "POST", HEADERS),
    LogEvent(_Text(US_URL), params_of("ann"), "POST", HEADERS),
    LogEvent(US_URL, _cycle(), "POST", HEADERS),
    LogEvent(US_URL, _deep(), "POST", HEADERS),
    LogEvent(US_URL, {"ann": 10**5_000}, "POST", HEADERS),
    LogEvent(US_URL, {"ann": float("nan")}, "POST", HEADERS),
    LogEvent(US_URL, {"ann": object()}, "POST", HEADERS),
    LogEvent(US_URL, _Items(ann=1), "POST", HEADERS),
    LogEvent(US_URL, "{ann", "POST", HEADERS),
    LogEvent(US_URL, None, "POST", HEADERS),
    LogEvent(US_URL, params_of("ann" * 1_500_000), "POST", HEADERS),
    LogEvent(US_URL, params_of("ann"), "ANN", HEADERS),
    LogEvent(US_URL, params_of("ann"), _Text("POST"), HEADERS),
    LogEvent(US_URL, params_of("ann"), "POST", "ann"),
    LogEvent(US_URL, params_of("ann"), "POST", {"ann": _Raises()}),
    LogEvent(US_URL, params_of("ann"), "POST", _Items(ann="ann")),
]


@pytest.mark.parametrize("event", HOSTILE, ids=lambda event: type(event).__name__)
def test_nothing_is_raised_whatever_is_dispatched(app, broker, caplog, event):
    """It is counted and warned of, and not a word of it is in the log."""
    dispatch_event(event)

    counts = _counts()
    assert sum(counts["refused"].values()) + sum(counts["dropped"].values()) == 1
    assert counts["published"] == len(_messages(broker)) == 0
    assert len(caplog.records) == 1
    assert "ann" not in caplog.text


def test_dispatching_by_parts_raises_nothing_either(app, broker, caplog):
    """The same promise."""
    dispatch(None, None)
    dispatch(US_URL, _Items(ann=1))

    assert stats()["refused"] == {"no_url": 1}
    assert stats()["dropped"] == {"unexpected_error": 1}
    assert "ann" not in caplog.text


def test_what_ends_the_process_is_not_swallowed(app):
    """Ctrl-C and the server's own time limit are not ours to keep."""

    class Stop:
        @property
        def url(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatch_event(Stop())


def test_an_unexpected_error_is_logged_with_its_place_but_not_its_text(app, caplog):
    """Whoever has to mend it sees where; what it quotes stays out."""
    dispatch_event(_Raises())

    (record,) = caplog.records
    assert "unexpected ValueError" in record.message
    assert "__getattr__" in record.message
    assert record.exc_info is None


def test_counters_add_up(app, broker):
    """Accepted is published and dropped; what was refused was never accepted."""
    for _ in range(3):
        dispatch(US_URL, params_of())
    dispatch_event(_Raises())
    dispatch("", params_of())
    dispatch(US_URL, [])

    assert _counts() == {
        "accepted": 4,
        "published": 3,
        "dropped": {"unexpected_error": 1},
        "refused": {"no_url": 1, "params_not_an_object": 1},
    }


def test_threads_dispatch_at_the_same_time(app, broker):
    """Nothing is lost between them, and they use no more connections than there are threads."""
    start = threading.Barrier(8)
    before = _publishing(broker)

    def work(name):
        app.set_current()
        start.wait()
        for n in range(25):
            dispatch(US_URL, params_of(f"{name}-{n}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = {message.args[2]["visitors"][0]["visitor_id"] for message in _messages(broker)}
    assert names == {f"{name}-{n}" for name in range(8) for n in range(25)}
    assert stats()["published"] == 200
    assert len(_publishing(broker) - before) <= 8


def test_disabled_means_accepted_and_forgotten(broker, caplog):
    """For local development: counted, but no reason to warn."""
    with celery_app(broker.url, optly_enabled=False):
        dispatch(US_URL, params_of())
        dispatch("", params_of())

    assert stats()["dropped"] == {"disabled": 1}
    assert stats()["refused"] == {"no_url": 1}
    assert _messages(broker) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_app_that_is_set_up_wrong_drops_with_the_sentence_that_helps(broker, caplog):
    """Not an exception in somebody's page; not once per event either."""
    with celery_app(broker.url, optly_qeue="events"):
        for _ in range(5):
            dispatch(US_URL, params_of("ann"))

    assert stats()["dropped"] == {"bad_settings": 5}
    (record,) = caplog.records
    assert "did you mean optly_queue?" in record.message


def test_a_loss_is_logged_once_a_reason_and_minute_without_payload_or_password(caplog):
    """An outage must not fill the disk; the log is read by more people than the events are."""
    caplog.set_level(logging.DEBUG)
    with celery_app(f"redis://:hunter2@127.0.0.1:{free_port()}/0", optly_outbox_dir="/dev/null"):
        for _ in range(5):
            dispatch(US_URL, params_of("ann", "u-1"), "POST", {"X-Who": "ann"})
        dispatch("", params_of("ann"))
        dispatch("", params_of("ann"))

    ours = [r for r in caplog.records if r.name == "optly_celery.event_dispatcher"]
    assert [r.levelname for r in ours] == ["ERROR", "WARNING"]
    assert ours[0].message == (
        "dropped 1 events: broker_unreachable: POST logx.optimizely.com, project 111001, 1 event, "
        f"{len(json.dumps(params_of('ann', 'u-1')))} B: not published (OperationalError)"
    )
    assert not [secret for secret in ("hunter2", "ann", "u-1") if secret in caplog.text]
    assert stats()["dropped"] == {"broker_unreachable": 5}


EAGER = [{"task_always_eager": True, "task_eager_propagates": value} for value in (False, True)]


@pytest.mark.parametrize("conf", EAGER)
@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (204, (1, {}, [])),
        (400, (1, {}, ["http_400"])),
        (503, (0, {"eager_delivery_failed": 1}, [])),
    ],
)
def test_an_eager_app_delivers_in_line(eager, conf, status, ending):
    """One attempt: delivered, kept as a dead letter, or dropped, as there is nothing to wait in."""
    app, collector = eager
    collector.script(status)
    app.conf.update(conf)

    dispatch(US_URL, params_of("ann"), "POST", {"X-A": "b"})

    (posted,) = collector.received
    assert (posted.body, posted.headers["x-a"]) == (json.dumps(params_of("ann")).encode(), "b")
    letters = DeadLetters(app.conf.broker_url, max_age_s=1e6).list()
    kept = [letter.reason for letter in letters]
    assert (stats()["published"], stats()["dropped"], kept) == ending


@pytest.fixture
def eager(app, collector):
    """An app that delivers to the collector, and the collector."""
    app.conf.optly_url_override = collector.url
    return app, collector


@pytest.mark.parametrize("conf", EAGER)
def test_an_eager_app_without_its_dead_letter_store_counts_the_loss(collector, conf):
    """Neither delivered nor kept is dropped."""
    collector.script(400)
    dead = f"redis://127.0.0.1:{free_port()}/0"
    with celery_app(dead, optly_url_override=collector.url, **conf):
        dispatch(US_URL, params_of("ann"))

    assert stats()["dropped"] == {"eager_delivery_failed": 1}


def test_an_eager_app_without_a_place_for_dead_letters_says_so(collector, caplog):
    """It has no Redis: what to set is in the log."""
    with celery_app("memory://", optly_url_override=collector.url, task_always_eager=True):
        dispatch(US_URL, params_of("ann"))

    assert stats()["dropped"] == {"eager_delivery_failed": 1}
    assert "set optly_dead_letter_url" in caplog.text


def test_an_eager_app_may_be_disabled(broker, collector):
    """Then nothing is posted."""
    with celery_app(
        broker.url, task_always_eager=True, optly_enabled=False, optly_url_override=collector.url
    ):
        dispatch(US_URL, params_of())

    assert collector.received == []


IN_ANOTHER_THREAD = """
app = Celery("shop", broker=sys.argv[1])
thread = threading.Thread(target=optly_celery.dispatch, args=(URL, {}))
thread.start()
thread.join()
"""

TWO_APPS_NO_DEFAULT = """
apps = [Celery(name, broker=sys.argv[1]) for name in ("shop", "stock")]
thread = threading.Thread(target=optly_celery.dispatch, args=(URL, {}))
thread.start()
thread.join()
"""

TWO_APPS_AND_A_DEFAULT = """
apps = [Celery(name, broker=sys.argv[1]) for name in ("shop", "stock")]
apps[1].conf.optly_queue = "stock-events"
apps[1].set_default()
thread = threading.Thread(target=optly_celery.dispatch, args=(URL, {}))
thread.start()
thread.join()
"""

NO_APP = """
aside = Celery("aside", broker="redis://nowhere.invalid/0", set_as_current=False)
optly_celery.dispatch(URL, {})
"""


def test_the_app_of_the_main_thread_counts_in_every_thread(broker):
    """Web servers dispatch in threads in which Celery knows of no app."""
    assert _in_a_process(IN_ANOTHER_THREAD, broker.url)["stats"] == PUBLISHED_ONE
    assert len(_messages(broker)) == 1


def test_of_several_apps_the_default_counts(broker):
    """In every thread, with its own settings."""
    assert _in_a_process(TWO_APPS_AND_A_DEFAULT, broker.url)["stats"] == PUBLISHED_ONE
    assert len(_messages(broker, "stock-events")) == 1


def test_several_apps_without_a_default_are_a_counted_drop_with_advice(broker):
    """To guess would send events to a broker that nobody chose."""
    done = _in_a_process(TWO_APPS_NO_DEFAULT, broker.url)

    assert done["stats"]["dropped"] == {"bad_settings": 1}
    assert "several Celery apps (shop, stock)" in done["log"]
    assert "set_default()" in done["log"]


def test_without_any_app_the_standalone_one_is_used(broker):
    """Configured by ``OPTLY_…`` variables, as its worker is; an app set aside is not meant."""
    done = _in_a_process(NO_APP, OPTLY_BROKER_URL=broker.url, OPTLY_QUEUE="events")

    assert done["stats"] == PUBLISHED_ONE
    assert len(_messages(broker, "events")) == 1


def test_a_wrong_variable_of_the_standalone_app_is_a_counted_drop_with_advice(broker):
    """Every time: a configuration that could not be read is not taken for an empty one."""
    done = _in_a_process(NO_APP + NO_APP, OPTLY_BROKER_URL=broker.url, OPTLY_MAX_RETRYS="1")

    assert done["stats"]["dropped"] == {"bad_settings": 2}
    assert "did you mean optly_max_retries?" in done["log"].lower()
    assert _messages(broker) == []


FORK = """
app = Celery("shop", broker=sys.argv[1])
optly_celery.dispatch(URL, {"by": "parent"})
optly_celery.dispatch("", {})
pid = FORK()
who = "child" if pid == 0 else "parent"
for n in range(50):
    optly_celery.dispatch(URL, {"by": who, "n": n})
if pid == 0:
    print(json.dumps({"child": optly_celery.stats()}), flush=True)
    sys.stdin.readline()
    os._exit(0)
print(json.dumps({"parent": optly_celery.stats()}), flush=True)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    "fork",
    [
        pytest.param("os.fork", id="python"),
        pytest.param("__import__('ctypes').PyDLL(None).fork", id="uwsgi"),  # runs no fork hooks
    ],
)
def test_a_forked_child_dispatches_over_connections_of_its_own(broker, fork):
    """As under a preforking server: each counts its own events, and none gets in another's way."""
    before = _publishing(broker)
    with _process(FORK.replace("FORK", fork), broker.url) as process:
        told = json.loads(process.stdout.readline()) | json.loads(process.stdout.readline())
        connections = _publishing(broker) - before
        process.communicate("go on\n", timeout=30)

    assert _counts(told["child"]) == {"accepted": 50, "published": 50, "dropped": {}, "refused": {}}
    assert told["parent"]["published"] == 51
    by = [message.args[2]["by"] for message in _messages(broker)]
    assert (by.count("child"), by.count("parent")) == (50, 51)
    assert len(connections) == 2


def _publishing(broker):
    """The connections whose last command put something into a list."""
    return {c["addr"] for c in broker.client().client_list() if c["cmd"] == "lpush"}


class _Message:
    """A message as it lies in the Redis list."""

    def __init__(self, raw):
        self.raw = json.loads(raw)
        assert self.raw["properties"]["body_encoding"] == "base64"
        body = base64.b64decode(self.raw["body"])
        self.args, self.kwargs, self.embed = json.loads(body)


def _counts(told=None):
    """What became of the events, without what is told about an outbox."""
    told = stats() if told is None else told
    return {key: told[key] for key in ("accepted", "published", "dropped", "refused")}


def _messages(broker, queue="optimizely"):
    return [_Message(raw) for raw in broker.client().lrange(queue, 0, -1)]


PRELUDE = f"""
import json, os, sys, threading
from celery import Celery
import optly_celery
URL = {US_URL!r}
"""


def _process(script, *arguments, **env):
    """A Python of its own: which apps there are is a matter of the whole process."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | env,
    )  # fmt: skip


def _in_a_process(script, *arguments, **env):
    tell = "\nprint(json.dumps(optly_celery.stats()))\n"
    with _process(script + tell, *arguments, **env) as process:
        out, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    return {"stats": _counts(json.loads(out)), "log": log}
