"""``outbox``: what processes that are gone have left behind on this machine."""

from __future__ import annotations

import json

import click

from ..runtime.process import close
from .chosen_app import chosen_runtime
from .exits import CONFIG, UNREACHABLE, Failure


@click.group()
def outbox() -> None:
    """Look after the outbox files of this machine."""


@outbox.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def drain(*, as_json: bool) -> None:
    """Publish what processes that are gone have left in their outboxes.

    Any process that stores events does this by itself, now and then; this is for a machine on
    which none runs any more. Files of running processes are left to them.

    \b
    Exits 0 when nothing is left, 3 when the broker stopped taking events.
    """  # noqa: D301 - click's mark for lines that stay as they are
    store = chosen_runtime().store
    if store is None:
        raise Failure("the outbox directory cannot be used: see above.", CONFIG)
    click.echo(f"looking into {store.directory} …", err=True)
    found = store.relay.adopt(store.directory)
    close(0)
    if as_json:
        click.echo(json.dumps({"directory": str(store.directory), **found._asdict()}))
    else:
        click.echo(
            f"{found.events:,} events published, {found.files} files removed; "
            f"{found.alive} files belong to running processes"
        )
    if not found.done:
        raise Failure(
            "the broker does not take events now; what is left stays in its files. "
            "Try again when it does.",
            UNREACHABLE,
        )
