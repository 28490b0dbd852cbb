"""``unreadable``: look at what was in the queue and is no message."""

from __future__ import annotations

import json

import click

from ..errors import PublishError
from ..status.verdict import unreadable as unreadable_of
from .chosen_app import runtime_from
from .exits import UNREACHABLE, Failure


@click.command()
@click.option("--show-payload", is_flag=True, help="Show what it is, which may be personal data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def unreadable(ctx: click.Context, /, *, show_payload: bool, as_json: bool) -> None:
    """List what was in the queue and is no message, oldest first.

    A worker sets it aside in a Redis list, as it is; `status` tells which, and nothing removes it.
    """
    try:
        items = unreadable_of(runtime_from(ctx), timeout_s=5.0)
    except PublishError as exc:
        raise Failure(str(exc), UNREACHABLE) from None
    rows = [
        {"bytes": len(item)} | ({"payload": item.decode(errors="replace")} if show_payload else {})
        for item in items
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo("  ".join(str(value) for value in row.values()))
    click.echo(f"{len(rows):,} unreadable.", err=True)
