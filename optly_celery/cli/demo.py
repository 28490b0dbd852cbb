"""``demo``: the whole pipeline on this machine, from one command."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from ..errors import OptlyCeleryError
from .exits import FAILED, OK, Failure

if TYPE_CHECKING:
    from ..demo.ledger import Ledger
    from ..demo.rig import Bar

EXIT_CANNOT_RUN = 3
EXIT_SIGNAL = 128  # plus the signal's number, as a shell counts


@click.command()
@click.option("--visitors", type=click.IntRange(1, 100_000), default=1000, show_default=True,
              help="How many visitors come by, with two events each.")  # fmt: skip
@click.option("--broker", metavar="URL",
              help="Use this Redis, redis://host:port/0, instead of an embedded Valkey. Keys that "
              "are there are left alone, and the demo's own are removed.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=0,
              help="Port of the collector; default: a free one.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the ledger as JSON.")
def demo(visitors: int, broker: str | None, port: int, as_json: bool) -> None:
    """See the whole pipeline run on this machine.

    The real Optimizely SDK decides and tracks, a real Celery worker delivers to a local
    collector, which goes away for a few seconds in the middle and refuses one event. Then every
    event is accounted for. Takes about 15 seconds.

    Exits 0 when nothing is lost, 1 when an event is unaccounted for, 3 when the demo cannot run
    here.
    """
    # Here, so that other commands need not wait for it.
    from ..demo.interrupt import Interrupted, interruptible  # noqa: PLC0415
    from ..demo.rig import Plan  # noqa: PLC0415
    from ..demo.tour import POISONED, run  # noqa: PLC0415

    guide = _Guide(err=as_json)
    click.secho("From the Optimizely SDK to the endpoint, on this machine", bold=True, err=as_json)
    click.echo(
        "Half-way the collector goes away for a while, and it refuses one event.\n", err=as_json
    )
    try:
        with interruptible() as check:
            plan = Plan(visitors=visitors, broker_url=broker, port=port)
            ledger = run(plan, guide, check)
    except Interrupted as exc:
        click.echo("\nStopped; nothing of the demo is left running.", err=True)
        sys.exit(EXIT_SIGNAL + exc.number)
    except OptlyCeleryError as exc:
        raise Failure(f"{exc}.", EXIT_CANNOT_RUN) from None
    balanced = ledger.balances(poisoned=POISONED)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(ledger) | {"balanced": balanced}, indent=2))
    else:
        _print(ledger, balanced)
    sys.exit(OK if balanced else FAILED)


@dataclasses.dataclass(frozen=True)
class _Guide:
    """Says what happens, for people: on standard output, or where that is for machines, beside."""

    err: bool

    def note(self, label: str, text: str) -> None:
        click.echo(f"  {label:<12}{text}", err=self.err)

    def bar(self, label: str, length: int) -> AbstractContextManager[Bar]:
        return click.progressbar(
            length=length,
            label=f"  {label}",
            file=sys.stderr if self.err else sys.stdout,
            bar_template="%(label)-12s  [%(bar)s]  %(info)s",
            empty_char=".",
            show_eta=False,
            show_pos=True,
            item_show_func=lambda item: item or None,
            update_min_steps=0,  # news of an outage come without progress
        )


def _print(ledger: Ledger, balanced: bool) -> None:
    speed = f"p50 {ledger.dispatch_p50_ms:.2f} ms, p99 {ledger.dispatch_p99_ms:.2f} ms"
    rows = [
        ("dispatched", ledger.dispatched, f"dispatch_event, beside a busy worker: {speed}"),
        ("delivered", ledger.delivered, "answered 2xx, by uuid"),
        ("dead letters", ledger.dead_letters, _counts(ledger.dead_letter_reasons)),
        ("lost", ledger.lost, _counts(ledger.dropped)),
        ("retried", ledger.retried, "posted again after a failure"),
        ("duplicates", ledger.duplicates, "delivered again, by uuid"),
        ("POSTs", sum(ledger.posts.values()), _counts(ledger.posts)),
    ]
    click.echo()
    for label, count, remark in rows:
        line = f"  {label:<12}{count:>9,}   {remark}".rstrip()
        lost = label == "lost"
        click.secho(line, bold=lost or None, fg="red" if lost and count else None)
    click.echo()
    if balanced:
        click.secho(f"Every event is accounted for, after {ledger.took_s:.0f} s.", fg="green")
    elif ledger.lost:
        noun = "event is" if ledger.lost == 1 else "events are"
        click.secho(f"{ledger.lost:,} {noun} unaccounted for.", fg="red", err=True)
    else:
        click.secho(f"{ledger.dead_letters:,} dead letters, where 1 was due.", fg="red", err=True)


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {name}" for name, count in by_name.items())
