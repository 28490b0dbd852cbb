"""The tour: real visitors, an outage in the middle, one poisoned event, and the account of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus

from ..dead_letters.redis_url import address
from ..errors import OptlyCeleryError
from ..event.payload import uuids_of
from ..runtime.process import runtime_of, stats
from .errors import DemoError
from .ledger import Books, Ledger
from .rig import Guide, Plan, Rig, rig
from .shop import Shop, Stopwatch

POISONED = 1
"""How many events of a run the collector refuses."""

_PATIENCE_S = 30.0  # far longer than the longest backoff of the demo's worker
_LOOK_EVERY_S = 0.1
_DROPS_AT_MOST = 5  # a hung broker costs half a second each


def run(plan: Plan, guide: Guide, check: Callable[[], None]) -> Ledger:
    """Run the pipeline once and account for every event.

    Whatever way this ends, no process, file or broker key of it is left.

    Raises:
        DemoError: it cannot run here.
        Interrupted: a signal came meanwhile.
    """
    started = time.monotonic()
    books = Books()
    try:
        with closing(Shop(Stopwatch(books.dispatch))) as shop, rig(plan, guide, check) as parts:
            guide.note("SDK", f"optimizely-sdk {shop.sdk_version}, {plan.visitors:,} visitors")
            _send(plan, guide, check, shop, parts)
            _deliver(guide, check, books, parts)
            took_s = time.monotonic() - started
    except OptlyCeleryError:
        # The same signal may have ended the broker; what fails for want of it is no error.
        check()
        raise
    return books.close(dropped=_dropped(), took_s=took_s)


def _send(plan: Plan, guide: Guide, check: Callable[[], None], shop: Shop, parts: Rig) -> None:
    percent, shown = max(1, plan.visitors // 100), 0
    with guide.bar("sending", plan.visitors) as bar:
        for number in shop.visits(plan.visitors, poisoned=plan.visitors // 4):
            check()
            if (dropped := _dropped()).total() > _DROPS_AT_MOST:
                raise DemoError(
                    f"the broker {address(parts.broker_url)} does not take events "
                    f"({', '.join(dropped)}): see whether it is full, read-only or overloaded"
                )
            if number - shown >= percent or number == plan.visitors:
                bar.update(number - shown)
                shown = number


def _deliver(guide: Guide, check: Callable[[], None], books: Books, parts: Rig) -> None:
    """Look on until every event is settled, or none has been for longer than patience lasts."""
    shown, since = 0, time.monotonic()
    ended = ""
    with guide.bar("delivering", books.open()) as bar:
        for is_away in _looks(books, parts):
            settled = books.settled()
            bar.update(settled - shown, "the collector answers 503" if is_away else "")
            if settled > shown:
                shown, since = settled, time.monotonic()
            if ended or books.open() == 0 or time.monotonic() - since > _PATIENCE_S:
                break
            check()
            try:
                parts.worker.check()
            except DemoError as exc:
                ended = str(exc)  # and look once more: it may have settled something since
            time.sleep(_LOOK_EVERY_S)
    if ended:
        guide.note("problem", ended)


def _looks(books: Books, parts: Rig) -> Iterator[bool]:
    """Enter into the books what has been received and kept; is the collector away?"""
    dead_letters = runtime_of(parts.app).dead_letters
    known: set[str] = set()
    is_away = False
    while True:
        for status, uuids in parts.collector.posts():
            books.post(uuids, status)
            is_away = status == HTTPStatus.SERVICE_UNAVAILABLE
        for letter_id in set(dead_letters.ids()) - known:
            letter = dead_letters.show(letter_id)
            books.keep(uuids_of(letter.event.params), letter.reason)
            known.add(letter_id)
        yield is_away


def _dropped() -> Counter[str]:
    """What the dispatcher has given up in this process, the demo's own, by reason."""
    counted = stats()
    return Counter(counted["dropped"]) + Counter(counted["refused"])
