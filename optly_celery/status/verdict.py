"""How the pipeline is now: what waits in the broker, which workers take it, what was refused.

`collect` asks, `verdict` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..broker_errors import in_words
from ..errors import DeadLetterError
from ..names import DELIVER_TASK
from ..runtime.runtime import Runtime
from .questions import (
    WorkerStatus,
    beside,
    bounded,
    broker_address,
    waiting,
    workers_of,
)

_OFF = "workers cannot be asked: worker_enable_remote_control is off in this configuration"


@dataclass(frozen=True, kw_only=True)
class Status:
    """What was found out. None means that it could not be; ``unanswered`` says why, in sentences.

    ``unacked`` counts what workers hold of all queues of this Redis database, retries that wait
    for their time included; ``unreadable`` what was in the queue and is no message, and waits for
    a worker to keep it as a dead letter; ``parked`` what waits for endpoints that are paused, by
    endpoint. None where the broker is no Redis. ``asked`` is the worker that alone was asked, if
    one was; of dead letters nothing is known then. ``can_ask`` is whether workers of this
    configuration answer at all.
    """

    broker: str
    queue: str
    asked: str | None = None
    can_ask: bool = True
    waiting: int | None = None
    unacked: int | None = None
    unreadable: int | None = None
    parked: Mapping[str, int] | None = None
    workers: tuple[WorkerStatus, ...] | None = None
    dead_letters: Mapping[str, int] | None = None
    expired: int | None = None
    unanswered: tuple[str, ...] = ()

    @property
    def broker_answered(self) -> bool:
        return self.waiting is not None

    def as_dict(self) -> dict[str, Any]:
        """What was found and its verdict, for a JSON document."""
        found = verdict(self)
        letters = self.dead_letters
        return {
            "healthy": found.healthy,
            "verdict": found.text,
            "broker": self.broker,
            "queue": self.queue,
            "waiting": self.waiting,
            "unacked": self.unacked,
            "unreadable": self.unreadable,
            "parked": self.parked,
            "workers": None if self.workers is None else [vars(w) for w in self.workers],
            "dead_letters": None if letters is None else sum(letters.values()),
            "dead_letters_by_reason": letters,
            "dead_letters_expired": self.expired,
            "trouble": list(self.unanswered),
        }


@dataclass(frozen=True)
class Verdict:
    """Whether events get delivered, and one line that says why."""

    healthy: bool
    text: str


def verdict(status: Status) -> Verdict:
    """Healthy when everything answers and a worker consumes the queue and knows the task.

    Dead letters do not make it unhealthy: they are safe, and wait for a person. Nor does an
    endpoint that is away make a worker unhealthy that alone was asked: it does what it should, and
    whoever restarts it on this verdict would restart all workers for the length of an outage. So
    would whoever restarts one for not answering that has been told not to.
    """
    workers = status.workers or ()
    problems = list(status.unanswered)
    consuming = [worker for worker in workers if worker.consumes]
    blind = [worker.name for worker in consuming if not worker.knows_task]
    if status.workers is not None:
        if not workers and not status.can_ask:
            problems.append(f"no worker answers, and {_OFF}")
        elif not workers and status.asked:
            problems.append(f"the worker {status.asked} does not answer")
        elif not workers:
            problems.append("no worker answers: start one")
        elif not consuming:
            problems.append(
                f"no worker consumes the queue {status.queue}: start one with -Q {status.queue}"
            )
        if blind:
            problems.append(
                f"{', '.join(blind)} would lose events, having no task {DELIVER_TASK}: "
                "add optly_celery.tasks to that app's include"
            )
    problems.extend(
        f"{worker.name} does not come back from {counted(worker.late, 'event')}: restart it"
        for worker in workers
        if worker.late
    )
    paused = [(worker.name, host) for worker in workers for host in worker.paused]
    if not status.asked:
        problems.extend(f"{name} has paused {host}" for name, host in paused)
    if problems:
        return Verdict(False, "unhealthy: " + "; ".join(problems))
    if status.workers is None:
        return Verdict(True, f"unknown: the broker answers, and {_OFF}")
    letters = sum((status.dead_letters or {}).values())
    kept = f"; {counted(letters)} kept for a person" if letters else ""
    waits = "".join(f"; it has paused {host}" for _, host in paused)
    on_queue = f"{counted(len(consuming), 'worker')} on {status.queue}"
    return Verdict(True, f"healthy: {on_queue}{kept}{waits}")


def collect(runtime: Runtime, *, timeout_s: float, worker: str | None = None) -> Status:
    """Ask broker, workers and dead letter store. Workers get ``timeout_s`` to answer.

    Asks nothing more of a broker that has failed to answer, which it has ``timeout_s`` for too.
    With the name of a ``worker``, asks that one alone, returns as soon as it has answered, and
    leaves out the dead letters: whether they can be kept is not that worker's health. Where the
    configuration has remote control off, it is not asked either.

    Raises:
        SettingsError: the configuration is wrong.
    """
    queue, dead = runtime.settings.queue, runtime.dead_letters
    broker = broker_address(runtime.app)
    can_ask = bool(runtime.app.conf.worker_enable_remote_control)
    asked = _Asked()
    with asked.about(f"the broker {broker}"), bounded(runtime.app, timeout_s) as connection:
        connection.default_channel  # noqa: B018 - connects; other ways wait 2 s and try again
        asked.found["waiting"] = waiting(connection, queue)
        asked.found |= beside(connection, queue)
        names = [worker] if worker else None
        with asked.about("workers could not be asked: the broker"):
            if can_ask or names is None:
                asked.found["workers"] = workers_of(
                    runtime.app, connection, queue, timeout_s, names
                )
    if "waiting" in asked.found and not worker:
        try:
            asked.found |= {"dead_letters": dead.count_by_reason(), "expired": dead.expired()}
        except DeadLetterError as exc:
            asked.unanswered.append(f"the dead letter store {exc}")
    return Status(
        broker=broker, queue=queue, asked=worker, can_ask=can_ask,
        unanswered=tuple(asked.unanswered), **asked.found,
    )  # fmt: skip


@dataclass
class _Asked:
    found: dict[str, Any] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)

    @contextmanager
    def about(self, subject: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            self.unanswered.append(f"{subject} {in_words(exc)}")


def counted(number: int, noun: str = "dead letter") -> str:
    """``1 dead letter``, ``1,200 dead letters``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
