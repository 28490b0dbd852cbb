"""``status``: whether events get delivered."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from celery.utils.nodenames import default_nodename, host_format

from ..event.printable import json_text
from ..status.verdict import Status, collect, verdict
from ..worker.receive.scripts import ASIDE
from .choice import by_reason
from .chosen_app import chosen_runtime
from .exits import FAILED, OK, UNREACHABLE, Failure
from .lines import print_line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.1, 60), default=2.0, show_default=True,
    metavar="SECONDS", help="How long the broker, and then the workers, have to answer.",
)  # fmt: skip
@click.option(
    "--worker", metavar="NAME",
    help="Ask this worker alone, named as for celery worker -n: celery@%h is the one on this host.",
)  # fmt: skip
def status(*, as_json: bool, timeout_s: float, worker: str | None) -> None:
    """Tell whether events get delivered.

    Shows what waits in the broker, which workers take it and what was refused. Workers are asked
    by remote control: one that has it off, or is too busy to answer in time, counts as away.

    \b
    Exits 0 when healthy: broker and dead letter store answer, a worker consumes
            the queue, and no endpoint is paused. Dead letters alone are not
            unhealthy. With --worker: the broker answers, and this worker
            consumes the queue, or has remote control off by configuration;
          1 when not;
          3 when the broker does not answer.
    """  # noqa: D301 - click's mark for lines that stay as they are
    name = host_format(default_nodename(worker)) if worker else None
    found = collect(chosen_runtime(), timeout_s=timeout_s, worker=name)
    judged = verdict(found)
    if as_json:
        click.echo(json_text(found.as_dict(), indent=2))
    elif found.broker_answered:
        for label, text in _rows(found):
            print_line(f"{label:<14}{text}")
        print_line(judged.text)
    if not found.broker_answered:
        raise Failure(
            f"{'; '.join(found.unanswered)}. Check that it runs, and that broker_url "
            "(OPTLY_BROKER_URL for the standalone app) names it.",
            UNREACHABLE,
        )
    sys.exit(OK if judged.healthy else FAILED)


def _rows(found: Status) -> Iterator[tuple[str, str]]:
    yield "broker", found.broker
    unacked = "" if found.unacked is None else f", {found.unacked:,} unacked (all queues)"
    yield "queue", f"{found.queue}: {found.waiting:,} waiting{unacked}"
    if found.unreadable:
        aside = ASIDE % found.queue
        yield "unreadable", f"{found.unreadable:,}, waiting in {aside} for a worker to keep"
    if found.workers is None:
        yield "workers", "unknown"
    for worker in found.workers or ():
        verb = "consumes" if worker.consumes else "does not consume"
        lacks = "" if worker.knows_task else ", has no deliver task"
        yield "worker", f"{worker.name} {verb} {found.queue}{lacks}"
        for host in worker.paused:
            yield "paused", f"{host} by {worker.name}"
    for host, count in (found.parked or {}).items():
        yield "parked", f"{count:,} for {host}"
    if found.dead_letters is not None:
        reasons = f" ({by_reason(found.dead_letters)})" if found.dead_letters else ""
        expired = f"; {found.expired:,} removed for their age" if found.expired else ""
        yield "dead letters", f"{sum(found.dead_letters.values()):,}{reasons}{expired}"
    elif found.asked is None:
        yield "dead letters", "unknown"
