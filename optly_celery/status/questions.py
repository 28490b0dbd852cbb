"""Questions to the broker and to its workers, each within a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..dead_letters.redis_url import address
from ..names import DELIVER_TASK, PAUSES_COMMAND
from ..worker.pause import parking
from ..worker.receive.scripts import ASIDE


@dataclass(frozen=True)
class WorkerStatus:
    """One worker that answered: whether it takes from the queue, and can run what it takes.

    ``paused`` names endpoints that it does not post to now, or only a little, with the reason.
    ``late`` is how many events it has under way for longer than any may be.
    """

    name: str
    consumes: bool
    knows_task: bool
    paused: tuple[str, ...] = ()
    late: int = 0


def broker_address(app: Any) -> str:
    """Where the broker is, the first one where the app has several."""
    url = app.conf.broker_read_url or "amqp://localhost"  # as for Celery
    first = str(url[0] if isinstance(url, (list, tuple)) else url)
    try:
        return address(first.partition(";")[0])
    except ValueError:  # whose text may quote a part of the password
        return "with a URL that cannot be read"


@contextmanager
def bounded(app: Any, timeout_s: float) -> Iterator[Any]:
    """A connection to the broker whose every network call is limited."""
    options: dict[str, Any] = {"max_retries": 0}
    plain = app.connection_for_read()
    if plain.transport.driver_type == "redis":
        options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    with app.connection_for_read(
        connect_timeout=timeout_s, transport_options=options
    ) as connection:
        yield connection


def waiting(connection: Any, queue: str) -> int:
    """How many messages are in the queue."""
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


def beside(connection: Any, queue: str) -> dict[str, Any]:
    """What is in Redis beside the queue: unacked of all queues, unreadable, and parked by host.

    Nothing where the broker is no Redis.
    """
    channel = connection.default_channel
    if not parking.can_park(channel):
        return {}
    return {
        "unacked": int(channel.client.hlen(channel.unacked_key)),
        "unreadable": int(channel.client.llen(ASIDE % queue)),
        "parked": parking.counts(channel, queue),
    }


def workers_of(
    app: Any, connection: Any, queue: str, timeout_s: float, names: list[str] | None
) -> tuple[WorkerStatus, ...]:
    """The workers that answer in time, of all or of those with these names, by name."""
    mailbox = app.control.mailbox(connection)
    mailbox.producer_pool = None  # it would take a connection without limits
    if names:
        replies = mailbox.call(names, "active_queues", timeout=timeout_s)
    else:
        replies = mailbox.multi_call("active_queues", timeout=timeout_s)
    consumed = _by_worker(replies)
    if not consumed:
        return ()
    tasks = _by_worker(mailbox.call(list(consumed), "registered", timeout=timeout_s))
    # An item reads "name" or "name [rate_limit=…]".
    able = [n for n, known in tasks.items() if DELIVER_TASK in (i.split(" ")[0] for i in known)]
    told = _by_worker(mailbox.call(able, PAUSES_COMMAND, timeout=timeout_s)) if able else {}
    paused = {name: [item for item in items if "host" in item] for name, items in told.items()}
    return tuple(
        WorkerStatus(
            name,
            any(item["name"] == queue for item in queues)
            # One that has paused shows the queue as not consumed.
            or any(p["queue"] == queue and p["wanted"] for p in paused.get(name, ())),
            name in able,
            tuple(f"{p['host']} ({p['reason']}, {p['state']})" for p in paused.get(name, ())),
            sum(item.get("late", 0) for item in told.get(name, ())),
        )
        for name, queues in sorted(consumed.items())
    )


def _by_worker(replies: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        name: answer if isinstance(answer, list) else []
        for reply in replies
        for name, answer in reply.items()
    }
