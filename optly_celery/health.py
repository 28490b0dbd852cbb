"""How the pipeline is now: what waits in the broker, which workers take it, what was refused.

`collect` asks, `verdict` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .errors import DeadLetterError
from .names import DELIVER_TASK
from .runtime import Runtime
from .trouble import trouble


@dataclass(frozen=True)
class WorkerFacts:
    """One worker that answered: whether it takes from the queue, and can run what it takes."""

    name: str
    consumes: bool
    knows_task: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found out. None means that it could not be; ``trouble`` says why, in sentences.

    ``unacked`` counts what workers hold of all queues of this Redis database, retries that wait
    for their time included; None where the broker is no Redis.
    """

    broker: str
    queue: str
    waiting: int | None = None
    unacked: int | None = None
    workers: tuple[WorkerFacts, ...] | None = None
    dead_letters: Mapping[str, int] | None = None
    expired: int | None = None
    trouble: tuple[str, ...] = ()

    @property
    def broker_answered(self) -> bool:
        return self.waiting is not None

    def as_dict(self) -> dict[str, Any]:
        """The facts and their verdict, for a JSON document."""
        found = verdict(self)
        letters = self.dead_letters
        return {
            "healthy": found.healthy,
            "verdict": found.text,
            "broker": self.broker,
            "queue": self.queue,
            "waiting": self.waiting,
            "unacked": self.unacked,
            "workers": None if self.workers is None else [vars(w) for w in self.workers],
            "dead_letters": None if letters is None else sum(letters.values()),
            "dead_letters_by_reason": letters,
            "dead_letters_expired": self.expired,
            "trouble": list(self.trouble),
        }


@dataclass(frozen=True)
class Verdict:
    """Whether events get delivered, and one line that says why."""

    healthy: bool
    text: str


def verdict(facts: Facts) -> Verdict:
    """Healthy when everything answers and a worker consumes the queue and knows the task.

    Dead letters do not make it unhealthy: they are safe, and wait for a person.
    """
    workers = facts.workers or ()
    problems = list(facts.trouble)
    consuming = [worker for worker in workers if worker.consumes]
    blind = [worker.name for worker in consuming if not worker.knows_task]
    if facts.workers is not None:
        if not workers:
            problems.append("no worker answers: start one")
        elif not consuming:
            problems.append(
                f"no worker consumes the queue {facts.queue}: start one with -Q {facts.queue}"
            )
        if blind:
            problems.append(
                f"{', '.join(blind)} would lose events, having no task {DELIVER_TASK}: "
                "add optly_celery.tasks to that app's include"
            )
    if problems:
        return Verdict(False, "unhealthy: " + "; ".join(problems))
    letters = sum((facts.dead_letters or {}).values())
    kept = f"; {_count(letters, 'dead letter')} kept for a person" if letters else ""
    return Verdict(True, f"healthy: {_count(len(consuming), 'worker')} on {facts.queue}{kept}")


def collect(runtime: Runtime, *, timeout_s: float) -> Facts:
    """Ask broker, workers and dead letter store. Workers get ``timeout_s`` to answer.

    Asks nothing more of a broker that has failed to answer, which it has ``timeout_s`` for too.

    Raises:
        SettingsError: the configuration is wrong.
    """
    queue, dead = runtime.settings.queue, runtime.dead_letters
    broker = _address(runtime.app)
    asked = _Asked()
    with asked.about(f"the broker {broker}"), _bounded(runtime.app, timeout_s) as connection:
        connection.default_channel  # noqa: B018 - connects; other ways wait 2 s and try again
        asked.found["waiting"] = _waiting(connection, queue)
        asked.found["unacked"] = _unacked(connection)
        with asked.about("workers could not be asked: the broker"):
            asked.found["workers"] = _workers(runtime.app, connection, queue, timeout_s)
    facts = {"broker": broker, "queue": queue, **asked.found}
    if "waiting" not in facts:
        return Facts(**facts, trouble=tuple(asked.trouble))
    try:
        facts |= {"dead_letters": dead.count_by_reason(), "expired": dead.expired()}
    except DeadLetterError as exc:
        asked.trouble.append(f"the dead letter store {exc}")
    return Facts(**facts, trouble=tuple(asked.trouble))


@dataclass
class _Asked:
    found: dict[str, Any] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    @contextmanager
    def about(self, subject: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - kombu lets through whatever its transports raise
            self.trouble.append(f"{subject} {trouble(exc)}")


def _address(app: Any) -> str:
    """The broker's URL, its password masked."""
    try:
        return str(app.connection_for_read().as_uri())
    except Exception:  # noqa: BLE001 - as above, and the text may quote a part of the password
        return "with a URL that cannot be read"


@contextmanager
def _bounded(app: Any, timeout_s: float) -> Iterator[Any]:
    """A connection to the broker whose every network call is limited."""
    options: dict[str, Any] = {"max_retries": 0}
    plain = app.connection_for_read()
    if plain.transport.driver_type == "redis":
        options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    with app.connection_for_read(
        connect_timeout=timeout_s, transport_options=options
    ) as connection:
        yield connection


def _waiting(connection: Any, queue: str) -> int:
    with connection.channel() as channel:
        if hasattr(channel, "_size"):
            # kombu's own transports. On Redis the sum over the queue and its sub-queues for other
            # priorities; a passive declare forgets global_keyprefix there (kombu 5.7).
            return int(channel._size(queue))  # noqa: SLF001
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors as exc:
            if "NOT_FOUND" in str(exc):  # nobody has declared it yet
                return 0
            raise


def _unacked(connection: Any) -> int | None:
    channel = connection.default_channel
    if not hasattr(channel, "unacked_key"):
        return None
    return int(channel.client.hlen(channel.unacked_key))


def _workers(app: Any, connection: Any, queue: str, timeout_s: float) -> tuple[WorkerFacts, ...]:
    mailbox = app.control.mailbox(connection)
    mailbox.producer_pool = None  # it would take a connection without limits
    consumed = _by_worker(mailbox.multi_call("active_queues", timeout=timeout_s))
    if not consumed:
        return ()
    tasks = _by_worker(mailbox.call(list(consumed), "registered", timeout=timeout_s))
    return tuple(
        WorkerFacts(
            name,
            any(item["name"] == queue for item in queues),
            # An item reads "name" or "name [rate_limit=…]".
            any(item.split(" ")[0] == DELIVER_TASK for item in tasks.get(name, ())),
        )
        for name, queues in sorted(consumed.items())
    )


def _by_worker(replies: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        name: answer if isinstance(answer, list) else []
        for reply in replies
        for name, answer in reply.items()
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
