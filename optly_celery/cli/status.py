"""``status``: whether events get delivered."""

from __future__ import annotations

import json
import sys

import click
from celery.utils.nodenames import default_nodename, host_format

from ..status.verdict import Facts, collect, verdict
from ..worker.receive.receipt import ASIDE
from .chosen_app import runtime_from
from .exits import FAILED, OK, UNREACHABLE

_UNKNOWN = "unknown"


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
@click.pass_context
def status(ctx: click.Context, /, *, as_json: bool, timeout_s: float, worker: str | None) -> None:
    """Tell whether events get delivered.

    Shows what waits in the broker, which workers take it and what was refused. Workers are asked
    by remote control: one that has it off, or is too busy to answer in time, counts as away.

    \b
    Exits 0 when healthy: broker and dead letter store answer, a worker consumes
            the queue, and no endpoint is paused. Dead letters alone are not
            unhealthy. With --worker: the broker answers, and this worker
            consumes the queue;
          1 when not;
          3 when the broker does not answer.
    """  # noqa: D301 - click's mark for lines that stay as they are
    name = host_format(default_nodename(worker)) if worker else None
    facts = collect(runtime_from(ctx), timeout_s=timeout_s, worker=name)
    found = verdict(facts)
    if as_json:
        click.echo(json.dumps(facts.as_dict(), indent=2))
    elif facts.broker_answered:
        _print(facts)
        click.echo(found.text)
    if not facts.broker_answered:
        click.echo(
            f"Error: {'; '.join(facts.trouble)}. Check that it runs, and that broker_url "
            "(OPTLY_BROKER_URL for the standalone app) names it.",
            err=True,
        )
        sys.exit(UNREACHABLE)
    sys.exit(OK if found.healthy else FAILED)


def _print(facts: Facts) -> None:
    unacked = "" if facts.unacked is None else f", {facts.unacked:,} unacked (all queues)"
    waiting = f"{facts.queue}: {facts.waiting:,} waiting{unacked}"
    rows = [("broker", facts.broker), ("queue", waiting)]
    if facts.unreadable:
        name = ASIDE % facts.queue
        rows.append(("unreadable", f"{facts.unreadable:,}, waiting in {name} for a worker to keep"))
    if facts.workers is None:
        rows.append(("workers", _UNKNOWN))
    for worker in facts.workers or ():
        verb = "consumes" if worker.consumes else "does not consume"
        lacks = "" if worker.knows_task else ", has no deliver task"
        rows.append(("worker", f"{worker.name} {verb} {facts.queue}{lacks}"))
        rows += [("paused", f"{host} by {worker.name}") for host in worker.paused]
    rows += [("parked", f"{count:,} for {host}") for host, count in (facts.parked or {}).items()]
    if facts.asked is None:
        rows.append(("dead letters", _letters(facts)))
    for name, value in rows:
        click.echo(f"{name:<14}{value}")


def _letters(facts: Facts) -> str:
    if facts.dead_letters is None:
        return _UNKNOWN
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in facts.dead_letters.items())
    expired = f"; {facts.expired:,} removed for their age" if facts.expired else ""
    return f"{sum(facts.dead_letters.values()):,}{f' ({reasons})' if reasons else ''}{expired}"
