"""A whole delivery line for tests: broker, worker, collector, and somebody who watches."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import Celery

from optly_celery import dispatch
from optly_celery.dead_letters.letter import DeadLetter
from optly_celery.dead_letters.store import DeadLetters
from optly_celery.event.event import Event
from optly_celery.event.payload import uuids_of
from optly_celery.testing.server import Server

from .conftest import celery_app
from .support import US_URL, Broker, Worker, eventually, params_of, visitor_of

# Celery takes "-P prefork" for "not given", and then the configuration's pool.
_POOL = 'import os\n\nworker_pool = os.environ["POOL"]\n'

_ENDS = {"task-succeeded": "SUCCESS", "task-failed": "FAILURE"}


class Watch:
    """Hears what workers tell monitors, as Flower does."""

    def __init__(self, broker_url: str) -> None:
        self.heard: list[dict[str, Any]] = []
        self._app = Celery("watch", broker=broker_url, set_as_current=False)
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self._thread.start()
        eventually(self._hears, what="it hears")  # not earlier: what nobody listens to is gone
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._say("watch-over")  # it looks up and sees
        self._thread.join(10)
        self._app.close()

    def _listen(self) -> None:
        with self._app.connection() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self._take})
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _hears(self) -> bool:
        self._say("watch-begins")
        return bool(self.heard)

    def _say(self, kind: str) -> None:
        with self._app.connection() as connection:
            self._app.events.Dispatcher(connection).send(kind)

    def _take(self, event: dict[str, Any]) -> None:
        self.heard.append(dict(event))

    def kinds(self, task_id: str) -> list[str]:
        """The types of the events about one task, in the order of their arrival."""
        return [e["type"] for e in self.heard if e.get("uuid") == task_id]

    def last(self, task_id: str, kind: str) -> dict[str, Any]:
        """The last event of one type about one task."""
        return [e for e in self.heard if e.get("uuid") == task_id and e["type"] == kind][-1]

    def end(self, task_id: str) -> str | None:
        """How the task ended, None before it has.

        Not its state in Flower: where a retry waits for 40 ms, it may end before a monitor hears
        that there will be one, and is shown as RETRY then.
        """
        ends = [_ENDS[kind] for kind in self.kinds(task_id) if kind in _ENDS]
        return ends[-1] if ends else None


class Line:
    """A worker of the standalone app between a broker and a collector, all of this line alone."""

    def __init__(self, directory: Path, *, config: str = "", **settings: object) -> None:
        (directory / "broker").mkdir(parents=True)
        (directory / "celeryconfig.py").write_text(_POOL + config)
        self.broker = Broker(directory / "broker", appendonly="yes")
        self.collector = Server()
        self.watch = Watch(self.broker.url)
        self._directory = directory
        self._settings = settings
        self.workers: list[Worker] = []

    def __enter__(self):
        self.collector.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.collector.stop()
        self.broker.stop()

    def work(
        self,
        *arguments: str,
        pool: str = "threads",
        wait: bool = True,
        broker_url: str | None = None,
        **settings: object,
    ) -> Worker:
        """Start a worker and wait until it is ready."""
        given = {"url_override": self.collector.url, **self._settings, **settings}
        env = {f"OPTLY_{name.upper()}": str(v) for name, v in given.items() if v is not None}
        env |= {"OPTLY_BROKER_URL": broker_url or self.broker.url, "POOL": pool}
        log = self._directory / f"worker-{len(self.workers)}.log"
        worker = Worker(log, env, "-P", pool, *arguments, cwd=self._directory)
        self.workers.append(worker)
        return worker.start(wait=wait)

    @property
    def dead(self) -> DeadLetters:
        return DeadLetters(self.broker.url, max_age_s=3600)

    def letters(self, task_id: str) -> list[DeadLetter]:
        return [letter for letter in self.dead.list() if letter.task_id == task_id]

    def kept(self, letter: DeadLetter) -> Event:
        return self.dead.show(letter.id).event

    def posts(self, uuid: str) -> list[Any]:
        """Requests whose body holds an event with this uuid, in the order of their arrival."""
        return [r for r in self.collector.received if f'"{uuid}"'.encode() in r.body]

    def ends(self, task_id: str, state: str) -> None:
        """Wait until monitors were told that the task has ended in this state."""
        eventually(
            lambda: self.watch.end(task_id) == state,
            what=lambda: f"{state}; heard {self.watch.kinds(task_id)}",
        )

    def dispatch(self, uuids: Iterable[str], url: str = US_URL) -> None:
        """Have an app of this broker dispatch an event with each of these uuids."""
        with celery_app(self.broker.url):
            for uuid in uuids:
                dispatch(url, params_of(uuid=uuid))

    def taken(self) -> Counter[str]:
        """How often the collector answered 2xx to which event, by uuid."""
        return taken(self.collector)

    def all_delivered(self, uuids: Iterable[str], *, timeout_s: float = 60.0) -> Counter[str]:
        """Wait until each of these was answered 2xx and the broker is empty; as `taken`."""
        wanted = set(uuids)
        eventually(
            lambda: wanted <= self.taken().keys() and self.is_empty(),
            timeout_s=timeout_s,
            what=lambda: f"delivered, missing {sorted(wanted - self.taken().keys())}",
        )
        return self.taken()

    def is_empty(self) -> bool:
        """Whether the broker holds nothing more for workers."""
        # In one step: a sweep may move messages from the one to the other in between.
        pipe = self.broker.client().pipeline()
        return not any(pipe.llen("optimizely").hlen("unacked").execute())


def batch_of(*visitors: str) -> dict[str, Any]:
    """Params with several visitors; each one's event has the uuid ``u-<visitor>``."""
    return params_of() | {"visitors": [visitor_of(v, f"u-{v}") for v in visitors]}


def taken(collector: Server) -> Counter[str]:
    """How often a collector answered 2xx to which event, by uuid."""
    # A copy: it is receiving.
    return Counter(uuids_in(r.body for r in list(collector.received) if r.answer.status == 204))


def uuids_in(bodies: Iterable[bytes]) -> list[str]:
    """The uuids of all events in these bodies, in order, repeated where they are."""
    return [uuid for body in bodies for uuid in uuids_of(json.loads(body))]


IMPATIENT = """\
broker_transport_options = {
    "visibility_timeout": 4,
    "unacked_restore_interval": 0.25,
    "unacked_restore_throttle": 1,
    "unacked_restore_limit": 100,
    "unacked_mutex_expire": 1,
}
"""
"""Configuration under which a killed worker's events come back within seconds."""

IMPATIENT_SETTINGS = {"retry_backoff": 0.1, "retry_backoff_max": 0.4, "request_timeout": "0.5,1"}
"""Settings that go with it: backoff and attempt together are shorter than 4 s."""
