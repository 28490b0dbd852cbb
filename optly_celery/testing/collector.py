"""A strict collector for tests, and delivery to it without broker and worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from ..dead_letters.letter import Kept
from ..deliver.delivery import Attempt, deliver
from ..deliver.retry import RetryPolicy
from ..deliver.transport import Transport
from ..event.event import Event
from ..event_dispatcher import diverted
from .assertions import Recorded
from .records import Conversion, Decision, read
from .schema import strict_check
from .server import Server


class Collector(Server, Recorded):
    """A server on loopback that takes what the Event API documents, and answers 400 to the rest.

    ``collector.script(503, 503, 204)``: so the next requests are answered, with statuses, or with
    `Answer`, `HANG` or `CLOSE`. ``received`` are all requests; ``events`` what was answered 2xx.
    ``kept`` are the events that were refused for good, with the reason, under `delivering`.

    Raises:
        SettingsError: jsonschema is not installed; ``strict=False`` does without.
    """

    def __init__(self, *, strict: bool = True, host: str = "127.0.0.1", port: int = 0) -> None:
        # The API asks for a header before it is strict; a test should not have to.
        super().__init__(host=host, port=port, accepts=strict_check() if strict else None)
        self.kept: list[tuple[Event, str]] = []

    def __enter__(self) -> Collector:
        self.start()
        return self

    def keep(self, kept: Kept) -> str:
        """Take a dead letter, and give its id."""
        self.kept.append((kept.event, kept.reason))
        return str(len(self.kept))

    @property
    def statuses(self) -> list[int | None]:
        """How the requests were answered, oldest first."""
        return [request.answer.status for request in list(self.received)]

    @property
    def events(self) -> list[Decision | Conversion]:
        taken = [r for r in list(self.received) if 200 <= (r.answer.status or 0) < 300]
        return [found for request in taken for found in read(request.params)]

    @property
    def trouble(self) -> list[str]:
        told = ", ".join(str(status) for status in self.statuses)
        lines = [f"answered: {told}"] if told else []
        return lines + [f"kept: {event.summary}: {reason}" for event, reason in self.kept]


@contextlib.contextmanager
def delivering(
    to: Collector, *, max_attempts: int = 10, timeout_s: float = 1.0, strict: bool = True
) -> Iterator[None]:
    """Deliver what is dispatched in this process to a collector, before ``dispatch_event`` returns.

    The way of a worker, with its verdicts, retries and splitting, but without waiting between
    attempts, and with ``to.kept`` for dead letters. A collector that hangs is given up on after
    ``timeout_s``.
    """
    transport = Transport(
        allowed_hosts=(), timeout_s=(timeout_s, timeout_s), url_override=to.url, strict=strict
    )
    policy = RetryPolicy(max_attempts=max_attempts, base_backoff_s=0.0)

    def take(event: Event) -> None:
        attempt = Attempt(task_id="test", number=1, first_at=time.time(), age_s=0.0)
        rest: Event | None = event
        while rest is not None:
            rest = deliver(rest, attempt, via=transport, policy=policy, dead=to).rest
            attempt = replace(attempt, number=attempt.number + 1)

    try:
        with diverted(take):
            yield
    finally:
        transport.close()
