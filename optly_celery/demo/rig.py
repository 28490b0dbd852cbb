"""Everything that the tour runs on, set up in order, and gone without trace at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from celery import Celery

from ..dead_letters.redis_url import address
from ..runtime.process import runtime_of
from .broker import check_url, corner, embedded_broker
from .processes import CollectorProcess, Worker, leash
from .shop import EVENTS_PER_VISITOR

_OUTAGE_S = 2.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. ``broker_url`` None means a broker of the demo's own; ``port`` 0 a free one."""

    visitors: int
    broker_url: str | None
    port: int


class Bar(Protocol):
    """A progress bar."""

    def update(self, n_steps: int, current_item: str | None = None) -> None: ...


class Guide(Protocol):
    """Tells a person what happens."""

    def note(self, label: str, text: str) -> None:
        """Say one thing."""

    def bar(self, label: str, length: int) -> AbstractContextManager[Bar]:
        """Show how far something is that takes a while."""


@dataclass(frozen=True)
class Rig:
    """The parts, running."""

    app: Celery
    broker_url: str
    collector: CollectorProcess
    worker: Worker


@contextlib.contextmanager
def rig(plan: Plan, guide: Guide, check: Callable[[], None]) -> Iterator[Rig]:
    """Run every part for the length of the block.

    Raises:
        DemoError: something is missing or refuses; what was started has been stopped.
        Interrupted: a signal came meanwhile.
    """
    with contextlib.ExitStack() as stack:
        if plan.broker_url is not None:
            check_url(plan.broker_url)
        home = Path(tempfile.mkdtemp(prefix="optly-celery-demo-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        last = stack.enter_context(contextlib.ExitStack())
        half = plan.visitors * EVENTS_PER_VISITOR // 2
        collector = CollectorProcess(home, port=plan.port, outage_at=half, outage_s=_OUTAGE_S)
        stack.callback(collector.kill)
        collector_url = collector.wait_until_ready(check)
        url = plan.broker_url or stack.enter_context(embedded_broker(home))
        prefix = f"optly-demo-{uuid.uuid4().hex[:8]}:"
        app = stack.enter_context(_app(url, prefix))
        stack.enter_context(corner(app, url, prefix))
        kind = "embedded Valkey, " if plan.broker_url is None else ""
        guide.note("broker", kind + address(url))
        guide.note("collector", f"{collector_url}, answers as the Event API does, strict")
        (home / "celeryconfig.py").write_text(
            "from optly_celery.celeryconfig import broker_transport_options as _usual\n"
            f"broker_transport_options = _usual | {{'global_keyprefix': {prefix!r}}}\n"
        )
        started = time.monotonic()
        worker = Worker(home, _environment(url, collector_url))
        stack.callback(worker.kill)
        broker_pids = (int(file.read_text()) for file in home.glob("valkey.pid"))
        last.enter_context(leash(-worker.pid, *broker_pids))  # holds until these have ended
        worker.wait_until_ready(check)
        took_s = time.monotonic() - started
        guide.note("worker", f"celery -A optly_celery worker, ready after {took_s:.1f} s")
        yield Rig(app, url, collector, worker)


@contextlib.contextmanager
def _app(url: str, prefix: str) -> Iterator[Celery]:
    """The Celery app of this process, which is the demo's alone.

    The prefix keeps every key apart from what else is on the broker: the queue, dead letters,
    and the list of unacked messages, on which the shortest visibility timeout of all would win.
    """
    for name in [name for name in os.environ if name.startswith("CELERY_")]:
        del os.environ[name]  # it would win over any configuration
    app = Celery("optly_celery_demo", broker=url)
    app.conf.update(
        broker_transport_options={"global_keyprefix": prefix}, optly_dead_letter_url=url
    )
    try:
        yield app
    finally:
        runtime_of(app).publisher.close()
        app.close()


def _environment(broker_url: str, collector_url: str) -> Mapping[str, str]:
    """The worker's: of what the shell has set for other workers, nothing."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPTLY_", "CELERY_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "OPTLY_BROKER_URL": broker_url,
        "OPTLY_URL_OVERRIDE": collector_url,
        "OPTLY_STRICT": "true",
        "OPTLY_RETRY_BACKOFF": "0.5",
        "OPTLY_RETRY_BACKOFF_MAX": "2",
    }
