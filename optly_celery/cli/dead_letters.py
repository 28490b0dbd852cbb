"""``dead-letters``: look at what was refused, publish it again or delete it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn

import click

from ..dead_letters.letter import DeadLetter, Fate
from ..dead_letters.replay import replay
from ..errors import DeadLetterError, PublishError
from .choice import Choice, choose, counted, filter_of, filters
from .chosen_app import runtime_from
from .exits import FAILED, INTERRUPTED, NOT_FOUND, OK, UNREACHABLE, Failure

_ROW = "{:<16}  {:<19}  {:<22}  {:>6}  {:>8}  {}"

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at refused events, publish them again or delete them.

    \b
    Exits 0 when all was done, 1 when not, 3 when the broker or the dead letter
    store does not answer, 4 when an id is unknown.
    """  # noqa: D301 - click's mark for lines that stay as they are


@dead_letters.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), help="Only so many, the newest.")
@_json
@click.pass_context
def list_(ctx: click.Context, /, *, as_json: bool, limit: int | None, **filtered: Any) -> None:
    """List dead letters, oldest failure first. Shows no personal data."""
    where = filter_of(**filtered)
    dead = runtime_from(ctx).dead_letters
    letters: Iterable[DeadLetter] = dead.list(where, newest_first=limit is not None)
    if limit is not None:
        letters = reversed(list(islice(letters, limit)))
    if as_json:
        _print_array(letters)
    else:
        _print_table(letters)


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@click.option("--show-payload", is_flag=True, help="Show the event too, which is personal data.")
@_json
@click.pass_context
def show(ctx: click.Context, /, *, letter_id: str, show_payload: bool, as_json: bool) -> None:
    """Show one dead letter."""
    facts = runtime_from(ctx).dead_letters.show(letter_id).as_dict()
    event = facts.pop("event")
    if as_json:
        click.echo(json.dumps(facts | {"event": event} if show_payload else facts, indent=2))
        return
    for name, value in facts.items():
        click.echo(f"{name:<10}{'-' if value is None else value}")
    if show_payload:
        click.echo(f"event     {json.dumps(event, indent=2)}")


def _choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the ids, the filters and what goes with changing things."""
    for option in (
        click.pass_context,
        click.option("--yes", is_flag=True, help="Do not ask."),
        _json,
        click.option("--all", "everything", is_flag=True, help="All dead letters."),
        filters,
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        command = option(command)
    return command


@dead_letters.command("replay")
@_choosing
def replay_(ctx: click.Context, /, *, ids: tuple[str, ...], everything: bool, as_json: bool,
            yes: bool, **filtered: Any) -> None:  # fmt: skip
    """Publish dead letters again, unchanged, for another round of attempts.

    A letter is removed once the broker has its event, so an interruption loses none.
    """
    where = filter_of(**filtered)
    runtime = runtime_from(ctx)
    choice = choose(runtime.dead_letters, ids, where, everything=everything)
    _confirm(f"Publish {choice.text} again?", choice, yes=yes)
    fates = replay(runtime.dead_letters, choice.ids, runtime.publisher.publish)
    _carry_out(Fate.REPLAYED, choice, fates, as_json=as_json)


@dead_letters.command()
@_choosing
def purge(ctx: click.Context, /, *, ids: tuple[str, ...], everything: bool, as_json: bool,
          yes: bool, **filtered: Any) -> None:  # fmt: skip
    """Delete dead letters. Their events are never delivered."""
    where = filter_of(**filtered)
    dead = runtime_from(ctx).dead_letters
    choice = choose(dead, ids, where, everything=everything)
    _confirm(f"Delete {choice.text} for good, undelivered?", choice, yes=yes)
    _carry_out(Fate.PURGED, choice, dead.purge(choice.ids), as_json=as_json)


def _confirm(question: str, choice: Choice, *, yes: bool) -> None:
    if yes or not choice.ids:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise Failure("nobody answered, so nothing was done. --yes does not ask.", FAILED) from None
    if not agreed:
        raise Failure("nothing was done.", FAILED)


def _carry_out(aim: Fate, choice: Choice, fates: Iterator[Fate], *, as_json: bool) -> NoReturn:
    """Work through the letters, tell what became of them, and exit."""
    seen: Counter[Fate] = Counter()
    problem, code = _work(fates, aim, len(choice.ids), seen)
    if code == OK and choice.missing:
        code = NOT_FOUND
    if code == OK and seen[Fate.BUSY] + seen[Fate.NO_EVENT]:
        code = FAILED
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
        click.echo(
            f"Error: {problem}. {counted(seen[aim])} {aim.value}, {remaining:,} still kept. "
            "No event is lost; when the cause is gone, run the same command again.",
            err=True,
        )
    sys.exit(code)


def _work(
    fates: Iterator[Fate], aim: Fate, length: int, seen: Counter[Fate]
) -> tuple[str | None, int]:
    """Count what becomes of the letters into ``seen``; what stopped it, and the exit code."""
    try:
        for fate in _with_bar(fates, aim, length):
            seen[fate] += 1
    except PublishError as exc:
        return f"an event could not be published ({exc.reason})", UNREACHABLE
    except DeadLetterError as exc:
        return f"the dead letter store {exc}", UNREACHABLE
    except KeyboardInterrupt:
        return "interrupted", INTERRUPTED
    return None, OK


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
            click.echo(
                _ROW.format("ID", "LAST FAILURE, UTC", "REASON", "STATUS", "ATTEMPTS", "EVENT")
            )
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
