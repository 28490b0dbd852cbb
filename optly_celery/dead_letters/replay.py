"""Publishing dead letters again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import NoSuchDeadLetterError, NotAnEventError
from ..event.event import Event
from .letter import Fate
from .store import DeadLetters


def replay(
    dead: DeadLetters, ids: Sequence[str], publish: Callable[[Event], object]
) -> Iterator[Fate]:
    """Publish events again, unchanged, one by one, and yield what became of each letter.

    A letter leaves the store only after the broker has its event: an interruption at any point
    leaves at worst one event both published and kept, never one in neither place. Two replays at
    the same time do not publish an event twice.

    Raises:
        DeadLetterError: the store does not answer.
        Exception: what ``publish`` raises. The letter is still kept then, and those after it.
    """
    for letter_id in ids:
        with dead.claim(letter_id) as claimed:
            fate = _replay(dead, letter_id, publish) if claimed else Fate.BUSY
        yield fate


def _replay(dead: DeadLetters, letter_id: str, publish: Callable[[Event], object]) -> Fate:
    try:
        kept = dead.show(letter_id).event
        # A letter may hold what is no event. Published, that could not even be decoded.
        event = Event.of(kept.url, kept.params, kept.verb, kept.headers)
    except NoSuchDeadLetterError:
        return Fate.GONE
    except NotAnEventError:
        return Fate.NO_EVENT
    publish(event)
    dead.remove([letter_id])
    return Fate.REPLAYED
