"""Hand-made parts of a worker: they note what is done to them, and do nothing by themselves."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from celery import Celery, bootsteps
from kombu.message import Message
from kombu.transport import virtual

from optly_celery.errors import DeadLetterError
from optly_celery.names import DELIVER_TASK, ENQUEUED_AT_HEADER
from optly_celery.worker.pause import parking
from optly_celery.worker.receive import scripts

from ...support import US_URL, params_of

QUEUE = "optimizely"
SINCE = 1_700_000_000.5


def an_app(**conf: Any) -> Celery:
    """An app whose worker consumes the deliver queue; nobody listens at its broker."""
    app = Celery("unit", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(task_ignore_result=True, **conf)
    app.amqp.queues.select([QUEUE])
    app.finalize()
    app.tasks.pop(DELIVER_TASK, None)  # the real one, where another test has imported it
    return app


class Channel:
    """Gives back and cannot park, as other brokers' do; ``refuses`` as many calls as it says."""

    no_ack_consumers = connection = None
    do_restore = False

    def __init__(self) -> None:
        self.settled: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.waiting: deque[Message] = deque()
        self.consumers: dict[str, Any] = {}
        self.refuses = 0

    @property
    def words(self) -> list[str]:
        """What became of messages, in order."""
        return [word for word, _ in self.settled]

    def basic_consume(self, queue: str, callback: Any) -> None:
        self.consumers[queue] = callback

    def basic_ack(self, tag: str, **_: Any) -> None:
        self._settle("ack", tag)

    def basic_reject(self, tag: str, requeue: bool = False) -> None:
        self._settle("give back" if requeue else "delete", tag)

    def basic_get(self, queue: str, no_ack: bool) -> Message | None:
        assert not no_ack
        self.asked.append(queue)
        return self.waiting.popleft() if self.waiting else None

    def _settle(self, word: str, tag: str) -> None:
        if self.refuses:
            self.refuses -= 1
            raise ConnectionResetError(104, "reset")
        self.settled.append((word, tag))


class ParkingChannel(Channel):
    """As kombu's for Redis, as far as parking goes; its scripts are known by name only.

    ``parked`` has how many messages of which hosts; ``sources`` has the lists of the messages that
    may be taken.
    """

    unacked_key, unacked_index_key, global_keyprefix = "unacked", "unacked_index", ""
    ack_emulation = True
    priority_steps = (0,)

    def __init__(self) -> None:
        super().__init__()
        self.parked: dict[str, int] = {}
        self.sources: dict[str, deque[Message]] = {}
        self.unparked: list[str] = []
        self.counted = 0
        self.qos = virtual.QoS(self)

    def _q_for_pri(self, queue: str, _priority: int) -> str:
        return queue

    @contextlib.contextmanager
    def conn_or_acquire(self) -> Any:
        if self.refuses:
            self.refuses -= 1
            raise ConnectionResetError(104, "reset")
        yield self

    def execute_command(self, _command: str, script: str, count: int, *rest: Any) -> Any:
        keys, args = rest[:count], rest[count:]
        if script == scripts.MOVE:
            self.settled.append(("park", args[0]))
            self.parked[args[3]] = self.parked.get(args[3], 0) + 1
            return 1
        if script == parking._COUNT:
            self.counted += 1
            return [one for item in self.parked.items() for one in item]
        if script == parking._UNPARK:
            host = keys[0].removeprefix(f"{QUEUE}.parked.")
            moved = self.parked.pop(host, 0)
            self.unparked += [host] * bool(moved)
            return moved
        self.asked.append(keys[3])
        found = self.sources.get(keys[3])
        raw = found.popleft()._raw | {"properties": {}} if found else None
        return ([json.dumps(raw).encode()] if raw else []), 0

    def Message(self, raw: dict[str, Any], channel: Any) -> Message:  # noqa: N802 - kombu's name
        return a_message(task_id=raw["id"], url=raw["url"], channel=channel)


def a_message(
    *args: Any,
    task_id: str = "t-1",
    url: Any = US_URL,
    channel: Any = None,
    body: Any = None,
    routing_key: str = QUEUE,
    content_type: str = "application/json",
    **headers: Any,
) -> Message:
    """A deliver task's message, by Celery's protocol 2; a header given as None is left out."""
    sent = [list(args or (url, "POST", params_of())), {}, {}] if body is None else body
    known = {
        "id": task_id,
        "task": DELIVER_TASK,
        "retries": 0,
        "argsrepr": "shown",
        "kwargsrepr": "{}",
        ENQUEUED_AT_HEADER: SINCE,
    }
    message = Message(
        body=sent if isinstance(sent, (str, bytes)) else json.dumps(sent),
        delivery_tag=f"tag of {task_id}",
        content_type=content_type,
        content_encoding="utf-8",
        delivery_info={"exchange": "", "routing_key": routing_key},
        properties={"correlation_id": task_id},
        headers={key: value for key, value in (known | headers).items() if value is not None},
        channel=Channel() if channel is None else channel,
        accept={"application/json"},
    )
    message._raw = {"id": task_id, "url": url}
    return message


@dataclass
class Timer:
    """Calls what is due when it is told to."""

    entries: list[tuple[float, Any, tuple[Any, ...]]] = field(default_factory=list)

    def call_after(self, seconds: float, call: Any, args: tuple[Any, ...] = ()) -> None:
        self.entries.append((seconds, call, tuple(args)))

    call_at = call_after

    def call_repeatedly(self, seconds: float, call: Any) -> Any:
        entry = (seconds, call, ())
        self.entries.append(entry)
        return SimpleNamespace(cancel=lambda: self.entries.remove(entry))

    @property
    def waits(self) -> list[float]:
        return [seconds for seconds, _, _ in self.entries]

    def run(self) -> None:
        """As if all that waits now had come due."""
        due, self.entries = self.entries, []
        for _, call, args in due:
            call(*args)


class Events:
    """An event dispatcher that somebody listens to."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.sent]


class TaskConsumer:
    """kombu's consumer of task messages: it knows which queues it consumes."""

    def __init__(self, app: Celery, channel: Any) -> None:
        self.queues = list(app.amqp.queues.consume_from.values())
        self.channel = channel
        self.received: list[Message] = []
        self.consumed = 0
        self.on_message: Any = self.received.append

    def _receive_callback(self, message: Message) -> None:
        self.on_message(message)

    def add_queue(self, queue: Any) -> None:
        self.queues.append(queue)

    def consume(self) -> None:
        self.consumed += 1

    def cancel_by_queue(self, name: str) -> None:
        self.queues = [queue for queue in self.queues if queue.name != name]

    @property
    def names(self) -> list[str]:
        return [queue.name for queue in self.queues]


class Consumer:
    """A worker's consumer, as far as the parts look at it; `turn` is one turn of its loop."""

    hostname = "unit@here"
    connection_errors = (ConnectionError,)
    disable_rate_limits = True
    apply_eta_task = _limit_task = _limit_post_eta = None

    def __init__(
        self, app: Celery, *, channel: Any = None, green: bool = False, hub: Any = "a loop"
    ) -> None:
        self.app = app
        self.pool = SimpleNamespace(is_green=green, apply_async=None)
        self.hub = hub
        self.timer = Timer()
        self.event_dispatcher: Any = Events()
        self.blueprint = SimpleNamespace(state=bootsteps.RUN)
        self.controller = SimpleNamespace(state=SimpleNamespace(revoked=set()))
        self.task_buckets: dict[str, None] = {DELIVER_TASK: None}
        self.task_consumer: Any = TaskConsumer(app, Channel() if channel is None else channel)
        self.requests: list[Any] = []
        self.celerys_way: list[tuple[Any, ...]] = []
        self._soon: list[tuple[Any, tuple[Any, ...]]] = []

    def add_task_queue(self, queue: str, *_: Any, **__: Any) -> None:
        queues = self.app.amqp.queues
        self.task_consumer.add_queue(queues.select_add(queues[queue]))

    def on_task_request(self, request: Any) -> None:
        self.requests.append(request)

    def create_task_handler(self) -> Any:
        return lambda message: self.celerys_way.append(("on_task_received", message))

    def call_soon(self, call: Any, *args: Any) -> None:
        self._soon.append((call, args))

    def turn(self) -> None:
        due, self._soon = self._soon, []
        for call, args in due:
            call(*args)

    def on_decode_error(self, message: Any, *_: Any) -> None:
        self.celerys_way.append(("on_decode_error", message))

    def on_invalid_task(self, _body: Any, message: Any, *_: Any) -> None:
        self.celerys_way.append(("on_invalid_task", message))

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        self.celerys_way.append(("on_unknown_message", message))

    def on_unknown_task(self, _body: Any, message: Any, *_: Any) -> None:
        self.celerys_way.append(("on_unknown_task", message))


class Letters:
    """Dead letters in memory; while it is ``away``, it takes nothing."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.strikes: dict[str, int] = {}
        self.away = False

    @property
    def reasons(self) -> list[str]:
        return [one.reason for one in self.kept]

    def keep(self, kept: Any) -> str:
        self._ask()
        self.kept.append(kept)
        return f"letter-{len(self.kept)}"

    def strike(self, task_id: str, *, least: int = 0) -> int:
        self._ask()
        self.strikes[task_id] = self.strikes.get(task_id, least) + 1
        return self.strikes[task_id]

    def forgive(self, task_id: str) -> None:
        self._ask()
        self.strikes.pop(task_id, None)

    def _ask(self) -> None:
        if self.away:
            raise DeadLetterError("redis://127.0.0.1:1/0 is away")
