"""What the worker borrows of Celery and kombu: names that they never promised.

Each feature lists what it leans on, and the promise that is weaker without it. Where something is
gone, or takes other arguments, that feature is left out, and the worker does as Celery and kombu
do. ``tests/upstream`` says of each name where it is used, and what to do when its test fails.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

_REDIS, _VIRTUAL = "kombu.transport.redis", "kombu.transport.virtual.base"
_CONSUMER = "celery.worker.consumer.consumer:Consumer"
_REQUEST = "celery.worker.request:Request"


@dataclass(frozen=True)
class Feature:
    """Names as ``module:path``, with the parameters that are relied upon in parentheses."""

    without: str
    names: tuple[str, ...]


RECEIPT, PAUSE, UNREADABLE, REQUEST = "receipt", "pause", "unreadable", "request"

FEATURES = {
    RECEIPT: Feature(
        "messages are received in two steps, and a kill between them loses one",
        (
            f"{_REDIS}:Channel._brpop_start(timeout)",
            f"{_REDIS}:Channel._brpop_read(options)",
            f"{_REDIS}:Channel._do_restore_message(payload)",
            f"{_REDIS}:Channel._create_client",
            f"{_REDIS}:Channel._q_for_pri(queue, pri)",
            f"{_REDIS}:Channel.conn_or_acquire(client)",
            f"{_REDIS}:Channel.from_transport_options",
            f"{_REDIS}:Channel.unacked_key",
            f"{_REDIS}:Channel.unacked_index_key",
            f"{_REDIS}:QoS.append(message, delivery_tag)",
            f"{_REDIS}:QoS.ack(delivery_tag)",
            f"{_REDIS}:QoS.restore_visible(num)",
            f"{_REDIS}:QoS.restore_by_tag(tag)",
            f"{_VIRTUAL}:QoS.append(message, delivery_tag)",
            f"{_VIRTUAL}:QoS.can_consume_max_estimate",
            f"{_VIRTUAL}:Transport._deliver(message, queue)",
            f"{_REDIS}:Transport.register_with_event_loop(connection, loop)",
            f"{_REDIS}:SentinelChannel._create_client",
        ),
    ),
    PAUSE: Feature(
        "nothing is paused: while an endpoint is away, attempts are spent on it",
        (
            f"{_CONSUMER}.call_soon",
            f"{_CONSUMER}.on_task_request",
            "celery.app.amqp:Queues.select_add(queue)",
            "celery.app.amqp:Queues.consume_from",
            "celery.worker.state:should_stop",
            "kombu.messaging:Consumer._receive_callback(message)",
            "kombu.messaging:Consumer.cancel_by_queue(queue)",
            f"{_VIRTUAL}:Message._raw",
            f"{_VIRTUAL}:QoS.ack(delivery_tag)",
        ),
    ),
    UNREADABLE: Feature(
        "messages that cannot be read are deleted by Celery, and logged with what is in them",
        (
            f"{_CONSUMER}.on_decode_error(message)",
            f"{_CONSUMER}.on_invalid_task(message)",
            f"{_CONSUMER}.on_unknown_message(message)",
            f"{_CONSUMER}.on_unknown_task(message)",
        ),
    ),
    REQUEST: Feature(
        "a message is acked whenever its task ends, also where its event is not safe, and nothing "
        "is paused",
        (
            f"{_REQUEST}.message",
            f"{_REQUEST}.revoked",
            f"{_REQUEST}.acknowledge",
            f"{_REQUEST}.on_failure(exc_info, send_failed_event, return_ok)",
            f"{_REQUEST}.on_timeout(soft, timeout)",
            f"{_REQUEST}.cancel",
            f"{_REQUEST}.send_event(type)",
            "celery.worker.state:task_ready",
            "celery.worker.state:reserved_requests",
        ),
    ),
}


def missing() -> dict[str, list[str]]:
    """The features that cannot be had here, each with what of its names is gone, or changed."""
    gone = {
        name: [text for text in feature.names if not _is_there(text)]
        for name, feature in FEATURES.items()
    }
    return {name: names for name, names in gone.items() if names}


def _is_there(text: str) -> bool:
    module, _, rest = text.partition(":")
    path, _, parameters = rest.rstrip(")").partition("(")
    try:
        start: Any = importlib.import_module(module)
        found = functools.reduce(_attribute, path.split("."), start)
        wanted = set(parameters.split(", ")) - {""}
        if not wanted:
            return True
        takes = inspect.signature(found).parameters
        # A monitoring agent wraps a function in one that takes anything.
        wrapped = all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in takes.values())
        return wrapped or wanted <= set(takes)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _attribute(owner: Any, name: str) -> Any:
    """An attribute, or its name where a class's constructor sets it."""
    code = getattr(owner.__init__, "__code__", None)
    if not hasattr(owner, name) and code is not None and name in code.co_names:
        return name
    return getattr(owner, name)
