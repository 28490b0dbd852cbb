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

_P = inspect.Parameter
_REDIS, _VIRTUAL = "kombu.transport.redis", "kombu.transport.virtual.base"
_CONSUMER = "celery.worker.consumer.consumer:Consumer."
_REQUEST = "celery.worker.request:Request."
_STATE = "celery.worker.state:"


@dataclass(frozen=True)
class Feature:
    """Names as ``module:path``, with the parameters that are relied upon in parentheses."""

    without: str
    names: tuple[str, ...]


def _of(owner: str, names: str) -> list[str]:
    return [owner + name for name in names.split("; ")]


RECEIPT, PAUSE, UNREADABLE, REQUEST = "receipt", "pause", "unreadable", "request"
WIRE = "wire"

FEATURES = {
    RECEIPT: Feature(
        "messages are received in two steps, and a kill between them loses one",
        (
            *_of(f"{_REDIS}:Channel.", "_brpop_start(timeout); _brpop_read(options)"),
            *_of(f"{_REDIS}:Channel.", "_lookup(exchange, routing_key); _q_for_pri(queue, pri)"),
            *_of(f"{_REDIS}:Channel.", "_get_message_priority(message, reverse)"),
            *_of(f"{_REDIS}:Channel.", "_create_client; conn_or_acquire(client)"),
            *_of(f"{_REDIS}:Channel.", "from_transport_options; unacked_key; unacked_index_key"),
            *_of(f"{_REDIS}:QoS.", "ack(delivery_tag); restore_unacked"),
            *_of(f"{_REDIS}:QoS.", "restore_visible(num); restore_by_tag(tag, leftmost)"),
            *_of(f"{_VIRTUAL}:QoS.", "append(message, delivery_tag); can_consume_max_estimate"),
            f"{_REDIS}:Transport.register_with_event_loop(connection, loop)",
            f"{_REDIS}:SentinelChannel._create_client",
        ),
    ),
    PAUSE: Feature(
        "nothing is paused: while an endpoint is away, attempts are spent on it",
        (
            *_of(_CONSUMER, "call_soon; on_task_request"),
            *_of("celery.app.amqp:Queues.", "select_add(queue); consume_from"),
            f"{_STATE}should_stop",
            *_of("kombu.messaging:Consumer.", "_receive_callback(message); cancel_by_queue(queue)"),
            f"{_VIRTUAL}:Message._raw",
            f"{_VIRTUAL}:QoS.ack(delivery_tag)",
        ),
    ),
    UNREADABLE: Feature(
        "messages that cannot be read are deleted by Celery, and logged with what is in them",
        (
            *_of(_CONSUMER, "on_decode_error(message); on_invalid_task(message)"),
            *_of(_CONSUMER, "on_unknown_message(message); on_unknown_task(message)"),
            *_of(_CONSUMER, "create_task_handler"),
            "kombu.message:Message._decoded_cache",
        ),
    ),
    WIRE: Feature(
        "an endpoint that sends a byte now and then can hold a thread for ever, and what it sends "
        "ahead of an answer may be taken for one",
        (
            "urllib3.poolmanager:PoolManager.pool_classes_by_scheme",
            "urllib3.connectionpool:HTTPConnectionPool.ConnectionCls",
            "urllib3.connection:HTTPConnection._new_conn",
            *_of("http.client:HTTPConnection.", "response_class; send(data); _tunnel"),
            *_of("http.client:HTTPResponse.", "_read_status; _close_conn"),
        ),
    ),
    REQUEST: Feature(
        "a message is acked whenever its task ends, also where its event is not safe, and nothing "
        "is paused",
        (
            *_of(_REQUEST, "message; revoked; acknowledge; cancel; terminate; send_event(type)"),
            *_of(_REQUEST, "on_failure(exc_info, send_failed_event, return_ok)"),
            *_of(_REQUEST, "on_timeout(soft, timeout)"),
            *_of(_STATE, "task_ready; reserved_requests"),
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
        kinds = {parameter.kind for parameter in takes.values()}
        # A monitoring agent wraps a function in one that takes anything.
        return wanted <= set(takes) or {_P.VAR_POSITIONAL, _P.VAR_KEYWORD} <= kinds
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _attribute(owner: Any, name: str) -> Any:
    """An attribute, or its name where a class's constructor sets it."""
    code = getattr(owner.__init__, "__code__", None)
    if not hasattr(owner, name) and code is not None and name in code.co_names:
        return name
    return getattr(owner, name)
