"""Which queue a message was received from, whatever its sender wrote into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .unfold import limited

_queue: ContextVar[str | None] = ContextVar("queue", default=None)


def current() -> str | None:
    """The queue whose message this thread or greenlet is receiving."""
    return _queue.get()


@contextmanager
def receiving(queue: str) -> Iterator[None]:
    """What is received within this block comes from this queue."""
    token = _queue.set(queue)
    try:
        yield
    finally:
        _queue.reset(token)


def watch(channel: Any, limits: str) -> None:
    """Know, from now on, where the messages of this kombu channel's consumers come from.

    To be called before anything is consumed. Messages of the queue ``limits`` are decompressed to
    a limit; to its other queues' messages nothing happens.
    """
    consume = channel.basic_consume

    def basic_consume(queue: str, *args: Any, callback: Any, **options: Any) -> Any:
        wrapped = _from(queue, callback, is_limited=queue == limits)
        tag = consume(queue, *args, callback=wrapped, **options)
        # kombu's brokers without AMQP make the message before they call back; then Redis's one-step
        # receipt makes it itself.
        makers = getattr(channel.connection, "_callbacks", None)
        if queue == limits and isinstance(makers, dict) and queue in makers:
            makers[queue] = _from(queue, makers[queue], is_limited=True)
        return tag

    channel.basic_consume = basic_consume


def _from(
    queue: str, callback: Callable[[Any], object], *, is_limited: bool
) -> Callable[[Any], object]:
    def received(message: Any) -> object:
        with receiving(queue):
            if not is_limited:
                return callback(message)
            with limited():
                return callback(message)

    return received
