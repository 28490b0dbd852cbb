"""``dead-letters``: look at what was refused, publish it again or delete it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any, NoReturn

import click

from ..dead_letters.letter import ALL, PERSONAL, DeadLetter, Fate
from ..dead_letters.replay import replay
from ..errors import DeadLetterError, PublishError, SettingsError
from ..event.printable import json_text
from ..runtime.runtime import Runtime
from ..status.verdict import counted
from ..testing.schema import faults_of
from .choice import FILTERS, by_reason, filter_of
from .chosen_app import chosen_runtime
from .exits import FAILED, INTERRUPTED, NOT_FOUND, OK, UNREACHABLE, Failure
from .lines import print_line

_HEAD = "ID                LAST FAILURE, UTC    REASON                  STATUS  ATTEMPTS  EVENT"
_ROW = (
    "{0.id:<16}  {0.last_at:%Y-%m-%d %H:%M:%S}  {0.reason:<22}  {status:>6}  {0.attempts:>8}  "
    "{0.summary}"
)
_MOST_FAULTS = 20
_TOLD = {
    Fate.GONE: "had left the store meanwhile.",
    Fate.BUSY: "kept, being in the hands of another replay: see in a minute whether any remain.",
    Fate.NO_EVENT: "kept, being no event that could be published: look with `dead-letters show`, "
    "delete with `dead-letters purge`.",
}
_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
_CHANGING = (
    click.Argument(["ids"], metavar="[ID]...", nargs=-1),
    *FILTERS,
    click.Option(["--all", "everything"], is_flag=True, help="All dead letters."),
    _JSON,
    click.Option(["--yes"], is_flag=True, help="Do not ask."),
)


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at refused events, publish them again or delete them.

    \b
    Exits 0 when all was done, 1 when not, 3 when the broker or the dead letter
    store does not answer, 4 when an id is unknown.
    """  # noqa: D301 - click's mark for lines that stay as they are


@dead_letters.command("list", params=[*FILTERS, _JSON])
@click.option("--limit", type=click.IntRange(1), help="Only so many, the newest.")
def list_(*, as_json: bool, limit: int | None, **filtered: Any) -> None:
    """List dead letters, oldest failure first. Shows no personal data."""
    where = filter_of(**filtered)
    dead = chosen_runtime().dead_letters
    letters: Iterable[DeadLetter] = dead.list(where, newest_first=limit is not None)
    if limit is not None:
        letters = reversed(list(islice(letters, limit)))
    (_print_array if as_json else _print_table)(letters)


@dead_letters.command(params=[_JSON])
@click.argument("letter_id", metavar="ID")
@click.option(
    "--show-payload", is_flag=True,
    help="Show the endpoint's words and the event too, which are personal data.",
)  # fmt: skip
@click.option(
    "--explain", is_flag=True, help="Say which fields the Event API's schema refuses, and why."
)
def show(*, letter_id: str, show_payload: bool, explain: bool, as_json: bool) -> None:
    """Show one dead letter."""
    letter = chosen_runtime().dead_letters.show(letter_id)
    facts = letter.as_dict()
    if not show_payload:
        for name in PERSONAL:
            del facts[name]
    if explain:
        try:
            facts["refused"] = list(faults_of(letter.event.params))
        except SettingsError as exc:
            raise Failure(f"{exc}.", FAILED) from None
    if as_json:
        click.echo(json_text(facts, indent=2))
        return
    for name, value in facts.items():
        if name == "refused":
            _print_faults(value)
            continue
        if name in PERSONAL and value is not None:
            click.echo(f"{name:<10}{json_text(value, indent=2)}")
        else:
            print_line(f"{name:<10}{'-' if value is None else value}")


@dead_letters.command("replay", params=[*_CHANGING])
def replay_(*, as_json: bool, **choosing: Any) -> None:
    """Publish dead letters again, unchanged, for another round of attempts.

    A letter is removed once the broker has its event, so an interruption loses none.
    """
    runtime, ids, missing = _agreed("Publish {} again?", **choosing)
    fates = replay(runtime.dead_letters, ids, runtime.publisher.publish)
    _carry_out(Fate.REPLAYED, ids, missing, fates, as_json=as_json)


@dead_letters.command(params=[*_CHANGING])
def purge(*, as_json: bool, **choosing: Any) -> None:
    """Delete dead letters. Their events are never delivered."""
    runtime, ids, missing = _agreed("Delete {} for good, undelivered?", **choosing)
    fates = runtime.dead_letters.purge(ids)
    _carry_out(Fate.PURGED, ids, missing, fates, as_json=as_json)


def _agreed(
    question: str, *, ids: tuple[str, ...], everything: bool, yes: bool, **filtered: Any
) -> tuple[Runtime, list[str], list[str]]:
    """Look up which letters are meant, and ask unless there are none, or a yes was given.

    Returns the runtime, the ids of the letters, oldest failure first, and ids that are unknown.

    Raises:
        UsageError: nothing says which letters are meant, or two things do.
        Failure: there was no yes.
    """
    where = filter_of(**filtered)
    runtime = chosen_runtime()
    if (bool(ids), where != ALL, everything).count(True) != 1:
        raise click.UsageError(
            "Say which dead letters are meant: either ids, or filters such as --reason http_400, "
            "or --all."
        )
    dead = runtime.dead_letters
    letters = dead.pick(list(dict.fromkeys(ids))) if ids else dead.list(where)
    reasons = {letter.id: letter.reason for letter in letters}
    what = f"{counted(len(reasons))} ({by_reason(Counter(reasons.values()))})"
    try:
        agreed = yes or not reasons or click.confirm(question.format(what), err=True)
    except click.Abort:
        click.echo(err=True)
        raise Failure("nobody answered, so nothing was done. --yes does not ask.", FAILED) from None
    if not agreed:
        raise Failure("nothing was done.", FAILED)
    return runtime, list(reasons), [letter_id for letter_id in ids if letter_id not in reasons]


def _carry_out(
    aim: Fate, ids: list[str], missing: list[str], fates: Iterator[Fate], *, as_json: bool
) -> NoReturn:
    """Work through the letters, tell what became of them, and exit."""
    seen: Counter[Fate] = Counter()
    problem, code = None, OK
    bar = click.progressbar(fates, length=len(ids), label=aim.value, file=sys.stderr)
    try:
        # Those before a problem are counted as well.
        with bar if sys.stderr.isatty() else nullcontext(fates) as watched:
            seen.update(watched)
    except PublishError as exc:
        problem, code = f"an event could not be published ({exc.reason})", UNREACHABLE
    except DeadLetterError as exc:
        problem, code = f"the dead letter store {exc}", UNREACHABLE
    except KeyboardInterrupt:
        problem, code = "interrupted", INTERRUPTED
    remaining = len(ids) - seen[aim] - seen[Fate.GONE]
    if as_json:
        counts = {fate.value: seen[fate] for fate in (aim, Fate.GONE, Fate.BUSY, Fate.NO_EVENT)}
        result = {"matched": len(ids), **counts, "remaining": remaining}
        click.echo(json_text(result | {"unknown": missing, "error": problem}, indent=2))
    elif problem is None:
        click.echo(f"{counted(seen[aim])} {aim.value}.")
    _tell(seen, missing)
    if problem is not None:
        raise Failure(
            f"{problem}. {counted(seen[aim])} {aim.value}, {remaining:,} still kept. "
            "No event is lost; when the cause is gone, run the same command again.",
            code,
        )
    sys.exit(NOT_FOUND if missing else FAILED if remaining else OK)


def _tell(seen: Counter[Fate], missing: list[str]) -> None:
    """Say what became of those that were not simply done."""
    for letter_id in missing:
        print_line(
            f"No dead letter has the id {letter_id}: mistyped, or replayed, purged or removed for "
            "its age.",
            err=True,
        )
    for fate, text in _TOLD.items():
        if seen[fate]:
            click.echo(f"{counted(seen[fate])} {text}", err=True)


def _print_faults(faults: list[str]) -> None:
    if not faults:
        click.echo("refused   nothing by the Event API's schema: the reason is elsewhere")
    for number, fault in enumerate(faults[:_MOST_FAULTS]):
        print_line(f"{'' if number else 'refused':<10}{fault}")
    if len(faults) > _MOST_FAULTS:
        click.echo(f"{'':<10}and {len(faults) - _MOST_FAULTS:,} more")


def _print_array(letters: Iterable[DeadLetter]) -> None:
    """One JSON array, a letter a line, printed as they come."""
    before = "["
    for letter in letters:
        click.echo(f"{before}\n{json_text(letter.as_dict())}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _print_table(letters: Iterable[DeadLetter]) -> None:
    number = 0
    for number, letter in enumerate(letters, 1):
        if number == 1:
            click.echo(_HEAD)
        print_line(_ROW.format(letter, status="-" if letter.status is None else letter.status))
    click.echo(f"{counted(number)}.", err=True)
