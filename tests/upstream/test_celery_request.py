"""Celery's `Request`: ours acks later than it, and shows less of the message."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest.mock import MagicMock

import kombu
import pytest
from celery import Celery

from optly_celery import tasks
from optly_celery.names import DELIVER_TASK

from ..support import US_URL
from .borrowed import rows, says, takes

R = "celery.worker.request:Request"
SEEN = "Celery 5.4.0, 5.5.3, 5.6.3, 5.7.0"

ROWS = [
    *rows(
        R, where="worker/request.py", seen=SEEN,
        gone="see where argsrepr, repr and info(safe=True) now take from what they show, and give "
        "them the summary there; until then pin Celery, or messages of others are shown whole",
        names={
            "__init__": ("no personal data is shown: it is given other headers than the message's",
                         takes(f"{R}.__init__", "message", "headers", "body", "decoded")),
            "argsrepr": ("read from those headers", says(f"{R}.__init__", "get('argsrepr', '')")),
            "kwargsrepr": ("as argsrepr", says(f"{R}.__init__", "get('kwargsrepr', '')")),
            "info": ("nobody is shown more", takes(f"{R}.info", "safe")),
        },
    ),
    *rows(
        R, where="worker/request.py", seen=SEEN,
        gone="find what is called at this point of a task's life now, and override that: an event "
        "is acked only when it is safe",
        names={
            "revoked": ("called before each run; true leaves the message alone",
                        says("celery.worker.request:create_request_cls", "if self.revoked():")),
            "acknowledge": ("called after a success alone", says(f"{R}.on_success", "acknowledge")),
            "on_failure": ("decides between ack and give back",
                           takes(f"{R}.on_failure", "exc_info", "send_failed_event", "return_ok")),
            "on_timeout": ("a hard limit gives back", takes(f"{R}.on_timeout", "soft", "timeout")),
            "terminate": ("a person has revoked what runs", takes(f"{R}.terminate", "pool")),
            "cancel": ("SIGQUIT in a pool that cannot end a task", takes(f"{R}.cancel", "pool")),
            "send_event": ("monitors are told", takes(f"{R}.send_event", "type", "fields")),
            "message": "what is kept as a dead letter",
        },
    ),
    *rows(
        R, where="worker/suspects.py", seen=SEEN,
        gone="read the header from request.message.headers",
        names={"request_dict": "the headers, with the mark of a dead worker's message"},
    ),
    *rows(
        "celery.worker.request", where="worker/request.py", seen=SEEN,
        gone="without a class of our own for requests no event is safe: pin Celery",
        names={"Request": ("a task names its own", says("celery.worker.strategy:default",
                                                        "symbol_by_name(task.Request)"))},
    ),
    *rows(
        "celery.worker.state", where="worker/request.py", seen=SEEN,
        gone="find who counts a request as over now: the worker waits for those that are not",
        names={"": "who has which request", "task_ready": ("a request is over",
                              takes("celery.worker.state:task_ready", "request"))},
    ),
    *rows(
        "celery.worker.state", where="worker/suspects.py", seen=SEEN,
        gone="note in DeliverRequest which requests are in the worker's hands",
        names={"reserved_requests": "whether the current suspect is still in the worker's hands"},
    ),
]  # fmt: skip

PRIVATE = "jane@example.com"
EVENT = {"account_id": "1", "visitors": [{"visitor_id": PRIVATE, "snapshots": []}]}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()


class Monitors:
    """What a worker tells monitors."""

    enabled = True

    def __init__(self):
        self.told = []

    def send(self, kind, **fields):
        self.told.append((kind, fields))


@pytest.fixture
def receive():
    """Have Celery's own strategy receive a message; the request, and what monitors were told."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.worker_send_task_events = True
    task = app.tasks[tasks.deliver.name]
    monitors, taken = Monitors(), []
    parts = MagicMock(missing={})
    consumer = MagicMock(
        hostname="w@host", event_dispatcher=monitors, connection_errors=(), optly_parts=parts,
        disable_rate_limits=True, on_task_request=taken.append, app=app,
        controller=SimpleNamespace(state=SimpleNamespace(revoked=set())),
    )  # fmt: skip
    handle = task.start_strategy(app, consumer)

    def receive(args, kwargs):
        sent = app.amqp.as_task_v2("some-id", DELIVER_TASK, args, kwargs)
        message = kombu.Message(
            body=json.dumps(sent.body), headers=dict(sent.headers), properties=sent.properties,
            content_type="application/json", content_encoding="utf-8", delivery_info={},
        )  # fmt: skip
        handle(message, None, lambda *_: None, lambda *_: None, [])
        return taken[0], monitors.told

    yield receive
    app.close()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((US_URL, "POST", EVENT), {}),
        ((US_URL, "POST", json.dumps(EVENT)), {"headers": {"X-Visitor": PRIVATE}}),
        ((), {"url": US_URL, "verb": "POST", "params": EVENT}),
        ((PRIVATE,), {"who": PRIVATE}),
        ((f"https://{PRIVATE}/", "GET", EVENT), {}),
    ],
    ids=["args", "text", "kwargs", "no event", "URL"],
)
def test_nothing_personal_is_shown_of_another_programs_message(receive, caplog, args, kwargs):
    """Celery shows arguments in its log, in events for monitors and to ``inspect``."""
    caplog.set_level("DEBUG")

    request, told = receive(args, kwargs)

    assert [kind for kind, _ in told] == ["task-received"]
    for shown in (repr(request), str(request), request.info(safe=True), told, caplog.text):
        assert PRIVATE not in str(shown)
    assert request.argsrepr == request.request_dict["argsrepr"]
    assert request.kwargsrepr == request.request_dict["kwargsrepr"] == "{}"


def test_nothing_personal_is_shown_to_who_asks_for_all_of_it(receive):
    """``inspect reserved``, ``scheduled`` and ``query_task`` do not ask for what is safe."""
    request, _ = receive((US_URL, "POST", EVENT), {})

    assert PRIVATE not in str(request.info())
