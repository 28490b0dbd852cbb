"""``dead-letters``: look at what was refused, publish it again or delete it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn

import click

from ..dead_letters.letter import DeadLetter, Fate
from ..dead_letters.replay import replay
from ..errors import DeadLetterError, PublishError
from ..runtime.runtime import Runtime
from .choice import FILTERS, Choice, choose, counted, filter_of
from .chosen_app import chosen_runtime
from .exits import FAILED, INTERRUPTED, NOT_FOUND, OK, UNREACHABLE, Failure

_ROW = "{:<16}  {:<19}  {:<22}  {:>6}  {:>8}  {}"
_HEAD = ("ID", "LAST FAILURE, UTC", "REASON", "STATUS", "ATTEMPTS", "EVENT")
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
    if as_json:
        _print_array(letters)
    else:
        _print_table(letters)


@dead_letters.command(params=[_JSON])
@click.argument("letter_id", metavar="ID")
@click.option("--show-payload", is_flag=True, help="Show the event too, which is personal data.")
def show(*, letter_id: str, show_payload: bool, as_json: bool) -> None:
    """Show one dead letter."""
    facts = chosen_runtime().dead_letters.show(letter_id).as_dict()
    event = facts.pop("event")
    if as_json:
        click.echo(json.dumps(facts | {"event": event} if show_payload else facts, indent=2))
        return
    for name, value in facts.items():
        click.echo(f"{name:<10}{'-' if value is None else value}")
    if show_payload:
        click.echo(f"event     {json.dumps(event, indent=2)}")


@dead_letters.command("replay", params=[*_CHANGING])
def replay_(*, as_json: bool, **choosing: Any) -> None:
    """Publish dead letters again, unchanged, for another round of attempts.

    A letter is removed once the broker has its event, so an interruption loses none.
    """
    runtime, choice = _agreed("Publish {} again?", **choosing)
    fates = replay(runtime.dead_letters, choice.ids, runtime.publisher.publish)
    _carry_out(Fate.REPLAYED, choice, fates, as_json=as_json)


@dead_letters.command(params=[*_CHANGING])
def purge(*, as_json: bool, **choosing: Any) -> None:
    """Delete dead letters. Their events are never delivered."""
    runtime, choice = _agreed("Delete {} for good, undelivered?", **choosing)
    _carry_out(Fate.PURGED, choice, runtime.dead_letters.purge(choice.ids), as_json=as_json)


def _agreed(
    question: str, *, ids: tuple[str, ...], everything: bool, yes: bool, **filtered: Any
) -> tuple[Runtime, Choice]:
    """Look up which letters are meant, and ask unless there are none, or a yes was given."""
    where = filter_of(**filtered)
    runtime = chosen_runtime()
    choice = choose(runtime.dead_letters, ids, where, everything=everything)
    try:
        agreed = yes or not choice.ids or click.confirm(question.format(choice.text), err=True)
    except click.Abort:
        click.echo(err=True)
        raise Failure("nobody answered, so nothing was done. --yes does not ask.", FAILED) from None
    if not agreed:
        raise Failure("nothing was done.", FAILED)
    return runtime, choice


def _carry_out(aim: Fate, choice: Choice, fates: Iterator[Fate], *, as_json: bool) -> NoReturn:
    """Work through the letters, tell what became of them, and exit."""
    seen: Counter[Fate] = Counter()
    problem, code = None, OK
    try:
        seen.update(_with_bar(fates, aim, len(choice.ids)))  # those before a problem, too
    except PublishError as exc:
        problem, code = f"an event could not be published ({exc.reason})", UNREACHABLE
    except DeadLetterError as exc:
        problem, code = f"the dead letter store {exc}", UNREACHABLE
    except KeyboardInterrupt:
        problem, code = "interrupted", INTERRUPTED
    remaining = len(choice.ids) - seen[aim] - seen[Fate.GONE]
    if as_json:
        counts = {fate.value: seen[fate] for fate in (aim, Fate.GONE, Fate.BUSY, Fate.NO_EVENT)}
        result = {"matched": len(choice.ids), **counts, "remaining": remaining}
        click.echo(json.dumps(result | {"unknown": choice.missing, "error": problem}, indent=2))
    elif problem is None:
        click.echo(f"{counted(seen[aim])} {aim.value}.")
    for sentence in _sentences(seen, choice):
        click.echo(sentence, err=True)
    if problem is not None:
        raise Failure(
            f"{problem}. {counted(seen[aim])} {aim.value}, {remaining:,} still kept. "
            "No event is lost; when the cause is gone, run the same command again.",
            code,
        )
    sys.exit(NOT_FOUND if choice.missing else FAILED if remaining else OK)


def _sentences(seen: Counter[Fate], choice: Choice) -> Iterator[str]:
    for letter_id in choice.missing:
        yield (
            f"No dead letter has the id {letter_id}: mistyped, or replayed, purged or removed for "
            "its age."
        )
    if seen[Fate.GONE]:
        yield f"{counted(seen[Fate.GONE])} had left the store meanwhile."
    if seen[Fate.BUSY]:
        yield (
            f"{counted(seen[Fate.BUSY])} kept, being in the hands of another replay: see in a "
            "minute whether any remain."
        )
    if seen[Fate.NO_EVENT]:
        yield (
            f"{counted(seen[Fate.NO_EVENT])} kept, being no event that could be published: look "
            "with `dead-letters show`, delete with `dead-letters purge`."
        )


def _with_bar(fates: Iterator[Fate], aim: Fate, length: int) -> Iterator[Fate]:
    """The same, with a progress bar on stderr if somebody is watching."""
    if not sys.stderr.isatty():
        yield from fates
        return
    with click.progressbar(fates, length=length, label=aim.value, file=sys.stderr) as bar:
        yield from bar


def _print_array(letters: Iterable[DeadLetter]) -> None:
    """One JSON array, a letter a line, printed as they come."""
    before = "["
    for letter in letters:
        click.echo(f"{before}\n{json.dumps(letter.as_dict())}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _print_table(letters: Iterable[DeadLetter]) -> None:
    number = 0
    for number, letter in enumerate(letters, 1):
        if number == 1:
            click.echo(_ROW.format(*_HEAD))
        click.echo(
            _ROW.format(
                letter.id,
                f"{letter.last_at:%Y-%m-%d %H:%M:%S}",
                letter.reason,
                "-" if letter.status is None else letter.status,
                letter.attempts,
                letter.summary,
            )
        )
    click.echo(f"{counted(number)}.", err=True)
