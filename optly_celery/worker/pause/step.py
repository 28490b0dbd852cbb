"""The part of a worker that stops receiving while an endpoint is away, and comes back gently.

It lives in the worker's main process, whatever the pool. While every host that was seen lately is
paused, the deliver queue is not consumed at all: an event is taken from it when a probe is due, and
as many as may be under way while a host resumes. While another host is well, the queue is consumed,
and what comes for the paused one is parked (`parking`).

What is touched to pause is the consumer's own list of queues, not the app's: whether a person has
cancelled the queue by remote control is noted there, and holds.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state

from ... import signals
from ...broker_errors import in_words
from ...event.printable import printable
from ..loop import Loop
from ..message import host_in
from ..receive import origin
from . import parking
from .policy import Change, Ended, Pauses

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_LOOK_S = 5.0  # how often to look for what others have parked
_PORTION = 1000  # moved back from there to the queue in one go
_TRIES = 20  # messages that are not ready, between two ticks
_AGAIN_S = 0.5  # after finding nothing that is ready


class Pausing:
    """What a worker does about pauses, from connection to connection."""

    def __init__(
        self, consumer: Any, loop: Loop, pauses: Pauses, *, queue: str, url_override: str | None
    ) -> None:
        self.pauses = pauses
        self.pid = os.getpid()
        self._queue = queue
        self._override = url_override
        self._consumer = consumer
        self._loop = loop
        self._turn = 0
        self._look_at_s = self._take_at_s = 0.0
        self._parked: dict[str, int] = {}
        self._stopped = self._taking = False

    def start(self) -> None:
        """Go on where the last connection ended: paused stays paused."""
        self._turn += 1
        self.pauses.forget_permits()
        self._stopped = False
        self._look_at_s = self._take_at_s = 0.0
        # Before the loop begins to consume.
        try:
            self._look_for_parked()
        except Exception as exc:  # noqa: BLE001 - there will be another look
            logger.warning("no look for parked messages (%s)", in_words(exc))
        self._arrange()
        self._keep_ticking(self._turn)

    def stop(self) -> None:
        self._turn += 1

    def host_of(self, url: object) -> str | None:
        """The host, with its port, that an event's URL makes the worker post to.

        None where there is no such host, and where nothing is paused at all.
        """
        if not self.pauses.enabled or not isinstance(url, str):
            return None
        return host_in(self._override or url)

    def receives(self, message: Any, url: object, *, is_due: bool) -> bool:
        """Whether a message just received may go on to the pool; if not, it is put away."""
        host = self.host_of(url)
        if host is None:
            return True
        if not is_due:
            # A queue that would give it back at once is no place for it either.
            if host not in self.pauses.troubled() or not parking.can_park(message.channel):
                return True
        elif self.pauses.admit(host, str(message.headers.get("id"))):
            return True
        self._put_away(message, host)
        return False

    def admits(self, task_id: str, url: object) -> bool:
        """Whether a message that has waited in this worker may go on to the pool."""
        host = self.host_of(url)
        return host is None or self.pauses.admit(host, task_id)

    def stops(self, task_id: str, url: object) -> bool:
        """Whether an event that waited in the pool must not be posted; for the pool's threads."""
        if self.pid != os.getpid():  # a copy in a prefork pool's child, where nothing waits
            return False
        host = self.host_of(url)
        return host is not None and self.pauses.stops(host, task_id)

    def ended(self, task_id: str, url: object, how: Ended, error: Any = None) -> None:
        """Take note of how an event ended; may be called from any thread of the pool."""
        host = self.host_of(url)
        if host is None:
            return
        reason = str(getattr(error, "reason", "")) or "unknown"
        change = self.pauses.ended(
            host, task_id, how, reason, getattr(error, "retry_after_s", None)
        )
        if change is not None:
            self._tell(change)
        if change is not None or self._stopped:
            self._loop.soon(self._tick)

    def report(self) -> list[dict[str, Any]]:
        """What a person may want to know of hosts in trouble: paused, or on the way back.

        ``wanted`` is whether this worker will consume the queue again by itself.
        """
        paused, wanted = self.pauses.paused(), self._is_wanted()
        return [
            {
                "host": host,
                "reason": reason,
                "state": "paused" if host in paused else "resuming",
                "queue": self._queue,
                "wanted": wanted,
            }
            for host, reason in sorted(self.pauses.troubled().items())
        ]

    def _keep_ticking(self, turn: int) -> None:
        if turn == self._turn:
            self._loop.soon(self._tick)
            self._consumer.timer.call_after(_TICK_S, self._keep_ticking, (turn,))

    def _tick(self) -> None:
        if self._taking or not self._is_running():
            return
        self._taking = True  # greenlets may come here while another waits for Redis
        try:
            # First: a full broker moves nothing that is parked until what is queued has gone.
            self._arrange()
            self._look_for_parked()
            if self._is_wanted():
                for host in self.pauses.troubled():
                    self._take(host)
        except Exception as exc:  # noqa: BLE001 - the connection's trouble is for Celery to see
            self._take_at_s = time.monotonic() + _AGAIN_S
            logger.warning("nothing taken while paused (%s)", in_words(exc))
        finally:
            self._taking = False

    def _is_running(self) -> bool:
        """Whether the loop has begun, and nobody has told the worker to stop: with 0, mostly."""
        consumer, stop = self._consumer, worker_state.should_stop
        return (
            (stop is None or stop is False)
            and consumer.blueprint.state == bootsteps.RUN
            and consumer.task_consumer is not None
            and consumer.task_consumer.on_message is not None
        )

    def _is_wanted(self) -> bool:
        """Whether this worker is to consume the queue at all, by its start or a person's word."""
        return self._queue in self._consumer.app.amqp.queues.consume_from

    def _arrange(self) -> None:
        tasks, queues = self._consumer.task_consumer, self._consumer.app.amqp.queues
        names = {queue.name for queue in tasks.queues}
        if self._queue in names and not self._is_wanted():
            queues.select_add(queues[self._queue])  # by a person: before 5.7, Celery forgot to
        was_stopped, self._stopped = self._stopped, not self.pauses.any_flows()
        if self._stopped:
            tasks.cancel_by_queue(self._queue)
        elif was_stopped and self._is_wanted() and self._queue not in names:
            tasks.add_queue(queues[self._queue])
            tasks.consume()

    def _look_for_parked(self) -> None:
        channel = self._consumer.task_consumer.channel
        if not parking.can_park(channel):
            return
        now = time.monotonic()
        if now >= self._look_at_s:
            self._look_at_s = now + _LOOK_S
            self._parked = parking.counts(channel, self._queue)
        if not self._is_wanted():
            return
        troubled = self.pauses.troubled()
        for host in list(self._parked):
            change = self.pauses.suspect(host, "parked")
            if change is not None:
                self._tell(change)
            elif host not in troubled and not parking.unpark(channel, self._queue, host, _PORTION):
                del self._parked[host]

    def _take(self, host: str) -> None:
        if time.monotonic() < self._take_at_s:
            return
        channel = self._consumer.task_consumer.channel
        sources = [self._queue] if self._stopped else []
        if parking.can_park(channel) and host in self._parked:
            sources.insert(0, parking.PARKED % (self._queue, host))
        for _ in range(_TRIES):
            if not self.pauses.room(host):
                return
            message = parking.next_of(channel, self._queue, sources)
            if message is None:
                break
            # As if it had just come in by itself.
            with origin.receiving(self._queue):
                self._consumer.task_consumer._receive_callback(message)  # noqa: SLF001
        self._take_at_s = time.monotonic() + _AGAIN_S

    def _put_away(self, message: Any, host: str) -> None:
        if self._stopped or not parking.park(message, self._queue, host):
            self._loop.give_back(message)
        else:
            self._parked.setdefault(host, 1)

    def _tell(self, change: Change) -> None:
        """To a person by the log, to programs by a signal, and to monitors."""
        word = "paused" if change.paused else "resumed"
        logger.warning("deliveries to %s %s: %s", printable(change.host), word, change.reason)
        told = {"host": change.host, "reason": change.reason}
        signals.tell(signals.paused if change.paused else signals.resumed, **told)
        if events := self._consumer.event_dispatcher:
            self._loop.soon(functools.partial(events.send, f"worker-optimizely-{word}", **told))
