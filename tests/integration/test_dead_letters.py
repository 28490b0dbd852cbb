"""The store of dead letters on a real server: what it keeps, for how long, and what breaks it."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from optly_celery.dead_letters.letter import Fate, Filter
from optly_celery.dead_letters.replay import replay
from optly_celery.dead_letters.store import DeadLetters
from optly_celery.errors import DeadLetterError, NoSuchDeadLetterError, PublishError
from optly_celery.event.event import Event

from ..letters import DAY_S, Clock, event_of, keep, kept, store
from ..support import eventually


def test_a_kept_letter_is_listed_shown_and_counted(broker):
    """With its reason, and the event as it was."""
    dead = store(broker)
    letter_id = keep(dead, 1, reason="http_413", status=413)

    (letter,) = dead.list()

    assert (letter.id, letter.reason, letter.status) == (letter_id, "http_413", 413)
    assert dead.show(letter_id).event == event_of(1)
    assert dead.count_by_reason() == {"http_413": 1}


def test_the_same_letter_kept_twice_is_one(broker):
    """A task that the broker hands out again is refused again, and keeps nothing new."""
    dead = store(broker)

    first, again = keep(dead, 1), keep(dead, 1, reason="http_422", status=422)

    assert first == again
    assert dead.count_by_reason() == {"http_422": 1}


def test_letters_are_told_apart_by_age_reason_and_status(broker):
    """Ages count from the last failure; every condition has to hold."""
    clock = Clock()
    dead = store(broker, clock=clock)
    for number, (reason, status) in enumerate(
        [("http_400", 400), ("attempts_exhausted", 503), ("http_400", 400)]
    ):
        keep(dead, number, reason=reason, status=status)
        clock.now += 3600

    def found(**where):
        return [letter.task_id for letter in dead.list(Filter(**where))]

    assert found() == ["task-0", "task-1", "task-2"]
    assert found(reason="http_400") == ["task-0", "task-2"]
    assert found(status=503) == ["task-1"]
    assert found(older_than_s=5400) == ["task-0", "task-1"]
    assert found(newer_than_s=9000) == ["task-1", "task-2"]
    assert found(newer_than_s=9000, reason="http_400") == ["task-2"]
    assert found(newer_than_s=9000, older_than_s=5400) == ["task-1"]
    assert next(dead.list(newest_first=True)).task_id == "task-2"


def test_more_letters_than_fit_a_page(broker):
    """Listing, counting and purging reach every one, in order."""
    clock = Clock()
    dead = store(broker, clock=clock)
    for number in range(1201):
        keep(dead, number)
        clock.now += 1

    assert [letter.task_id for letter in dead.list()] == [f"task-{n}" for n in range(1201)]
    assert dead.count_by_reason() == {"http_400": 1201}
    assert list(dead.purge(dead.ids())) == [Fate.PURGED] * 1201
    assert broker.client().keys() == []


def test_an_old_letter_is_removed_by_the_next_and_counted(broker, caplog):
    """The bound is age; what goes is counted for good, and logged."""
    clock = Clock()
    dead = store(broker, clock=clock, max_age_s=DAY_S)
    keep(dead, 1)
    clock.now += DAY_S + 1

    with caplog.at_level(logging.WARNING):
        young = keep(dead, 2)

    assert dead.ids() == [young]
    assert dead.expired() == 1
    assert "removed 1 dead letters" in caplog.text
    assert dead.count_by_reason() == {"http_400": 1}
    assert broker.client().hlen("optly_celery:dead-letters:events") == 1


def test_looking_removes_nothing(broker):
    """Whoever looks may do so with a shorter age than the workers keep letters for."""
    clock = Clock()
    keep(store(broker, clock=clock), 1)
    clock.now += 40 * DAY_S
    hasty = store(broker, clock=clock, max_age_s=60)

    assert len(list(hasty.list())) == 1
    assert len(hasty.count_by_reason()) == 1
    assert hasty.expired() == 0


def test_workers_that_remove_the_same_letters_count_them_once(broker):
    """Whether by two workers or by one that asks again after a lost answer."""
    clock = Clock()
    old = store(broker, clock=clock, max_age_s=DAY_S)
    for number in range(100):
        keep(old, number)
    clock.now += DAY_S + 1
    stores = [store(broker, clock=clock, max_age_s=DAY_S) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, stores, range(1000, 1008)))

    assert old.expired() == 100
    assert len(old.ids()) == 8


ELSEWHERE = """
import sys, time

late_s, url, number = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
true = time.time
time.time = lambda: true() + late_s

from optly_celery.dead_letters.letter import Filter
from tests.letters import event_of, kept
from optly_celery.dead_letters.store import DeadLetters

dead = DeadLetters(url, max_age_s=1800)
dead.keep(kept(event_of(number), f"task-{number}"))
print(len(dead.ids(Filter(newer_than_s=600))), len(dead.ids(Filter(older_than_s=600))))
"""
"""Another host: it keeps a letter, and counts those of the last ten minutes, and the others."""


@pytest.mark.parametrize("wrong_by_s", [3600, -3600, 40 * DAY_S, -40 * DAY_S, 0])
def test_a_clock_that_is_wrong_removes_no_letter_and_makes_none_older(broker, wrong_by_s):
    """The time is the server's, for what is kept, what is too old, and what a filter means."""
    dead = store(broker, max_age_s=1800)
    before = datetime.now(timezone.utc)
    keep(dead, 1)

    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(wrong_by_s), broker.url, "2"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    keep(dead, 3)

    assert found.split() == ["2", "0"], "as whoever's clock is wrong sees it"
    assert [letter.task_id for letter in dead.list()] == ["task-1", "task-2", "task-3"]
    assert len(dead.ids(Filter(newer_than_s=600))) == 3
    assert dead.ids(Filter(older_than_s=600)) == []
    assert dead.expired() == 0
    for letter in dead.list():
        assert timedelta(seconds=-1) <= letter.last_at - before <= timedelta(seconds=60)


def test_by_the_servers_time_old_letters_are_removed_as_ever(broker):
    """It is not that nothing is removed any more."""
    dead = store(broker, max_age_s=0.05)
    keep(dead, 1)
    asked = broker.client().time()

    eventually(lambda: broker.client().time() > (asked[0] + 1, asked[1]), what="a second later")
    young = keep(store(broker, max_age_s=1), 2)

    assert (dead.ids(), dead.expired()) == ([young], 1)


def test_apps_with_a_key_prefix_have_letters_of_their_own(broker):
    """As they have queues of their own."""
    mine, theirs = store(broker), store(broker, key_prefix="shop.")
    keep(theirs, 1)

    assert list(mine.list()) == []
    assert all(key.startswith(b"shop.") for key in broker.client().scan_iter())


def test_a_damaged_letter_hides_no_other_and_can_be_purged(broker):
    """Somebody may have written to these keys by hand."""
    dead = store(broker)
    keep(dead, 1)
    broken = keep(dead, 2)
    for key in ("facts", "events"):
        broker.client().hset(f"optly_celery:dead-letters:{key}", broken, "{")

    assert dead.count_by_reason() == {"http_400": 1, "unreadable": 1}
    assert len(list(dead.list())) == 2
    assert list(replay(dead, [broken], lambda _: None)) == [Fate.NO_EVENT]
    assert list(dead.purge([broken])) == [Fate.PURGED]


def test_an_unknown_id_is_an_error_of_its_own(broker):
    """It may be mistyped, or gone meanwhile."""
    dead = store(broker)

    with pytest.raises(NoSuchDeadLetterError, match="no dead letter has the id 123"):
        dead.show("123")
    assert list(dead.pick(["123"])) == []
    assert list(dead.pick([])) == []


def test_a_replay_publishes_the_event_and_removes_the_letter(broker):
    """In this order: at the moment of publishing, the letter is still kept."""
    dead = store(broker)
    letter_id = keep(dead, 1)
    seen = []

    def publish(event):
        seen.append((event, event.body, dead.ids()))

    assert list(replay(dead, [letter_id, "gone"], publish)) == [Fate.REPLAYED, Fate.GONE]
    assert seen == [(event_of(1), event_of(1).body, [letter_id])]
    assert broker.client().keys() == []


@pytest.mark.parametrize("stop", [PublishError("no", reason="broker_timeout"), KeyboardInterrupt()])
def test_a_replay_that_stops_keeps_what_is_left(broker, stop):
    """The letter at hand too, since nobody knows whether the broker has its event."""
    dead = store(broker)
    ids = [keep(dead, number) for number in range(5)]
    published = []

    def publish(event):
        if len(published) == 2:
            raise stop
        published.append(event)

    with pytest.raises(type(stop)):
        list(replay(dead, ids, publish))

    assert sorted(dead.ids()) == sorted(ids[2:])
    assert list(replay(dead, ids[2:], published.append)) == [Fate.REPLAYED] * 3
    assert published == [event_of(number) for number in range(5)]


def test_two_replays_at_once_publish_each_event_once(broker):
    """Or a refused event would come back as two letters."""
    ids = [keep(store(broker), number) for number in range(200)]
    published = []

    def run(dead):
        return list(replay(dead, ids, published.append))

    with ThreadPoolExecutor(3) as pool:
        fates = [
            fate for fates in pool.map(run, [store(broker) for _ in range(3)]) for fate in fates
        ]

    assert sorted(e.body for e in published) == sorted(event_of(n).body for n in range(200))
    assert fates.count(Fate.REPLAYED) == 200
    assert set(fates) <= {Fate.REPLAYED, Fate.GONE, Fate.BUSY}


def test_a_letter_in_the_hands_of_a_killed_replay_is_free_again_soon(broker):
    """Its claim runs out by itself; until then the letter stays where it is."""
    dead = store(broker)
    letter_id = keep(dead, 1)
    killed = dead.claim(letter_id)
    killed.__enter__()

    assert list(replay(dead, [letter_id], lambda _: None)) == [Fate.BUSY]
    assert dead.ids() == [letter_id]
    assert 0 < broker.client().ttl(f"optly_celery:dead-letters:replaying:{letter_id}") <= 60


def test_an_event_refused_again_while_it_is_replayed_is_kept_again(broker):
    """The new letter is another task's, so the end of the replay does not remove it."""
    dead = store(broker)
    old = keep(dead, 1)
    new = []

    def publish_to_a_fast_worker(event):
        new.append(dead.keep(kept(event, "second", status=400)))

    assert list(replay(dead, [old], publish_to_a_fast_worker)) == [Fate.REPLAYED]
    assert dead.ids() == new


def test_what_is_no_event_is_not_published_but_stays(broker):
    """As a message it could not be decoded, and would be lost."""
    dead = store(broker)
    strange = Event.raw("https://h/", {"visitors": []}, 'PU"T', None)
    letter_id = dead.keep(kept(strange, reason="bad_verb"))
    published = []

    assert list(replay(dead, [letter_id], published.append)) == [Fate.NO_EVENT]
    assert published == []
    assert dead.show(letter_id).event == strange


def test_a_purge_tells_what_it_found(broker):
    """Somebody else may have been there first."""
    dead = store(broker)
    ids = [keep(dead, 1), "gone", keep(dead, 2)]

    assert sorted(fate.value for fate in dead.purge(ids)) == ["gone", "purged", "purged"]


def test_strikes_are_counted_and_forgotten_in_a_day(broker):
    """From the first on, not from the last: what is noted of a task never stays for good."""
    dead, client = store(broker), broker.client()
    key = "optly_celery:dead-letters:strikes:task-1"

    assert [dead.strike("task-1", least=1), dead.strike("task-1", least=1)] == [2, 3]
    assert 86_000 < client.ttl(key) <= 86_400
    client.expire(key, 100)
    assert dead.strike("task-1") == 4
    assert 0 < client.ttl(key) <= 100

    assert dead.strike("task-2") == 1
    dead.forgive("task-1")
    assert dead.strike("task-1") == 1


def test_a_store_that_is_away_is_one_sentence_without_password(own_broker):
    """Each call fails with the store's address, and with what is wrong with it."""
    url = own_broker.url.replace("127.0.0.1", ":secret@127.0.0.1")
    own_broker.client().config_set("requirepass", "secret")
    dead = store(own_broker)
    with pytest.raises(DeadLetterError, match="refused the user name or password"):
        dead.ids()
    own_broker.kill()
    dead = DeadLetters(url, max_age_s=60)

    for call in (dead.ids, dead.count_by_reason, dead.expired, lambda: dead.show("1"),
                 lambda: keep(dead), lambda: dead.remove(["1"]),
                 lambda: list(replay(dead, ["1"], print))):  # fmt: skip
        with pytest.raises(DeadLetterError) as caught:
            call()
        assert f"redis://127.0.0.1:{own_broker.port}/0 cannot be reached" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_hung_store_is_given_up_once(own_broker, monkeypatch):
    """A worker must not wait for it twice over."""
    monkeypatch.setattr("optly_celery.dead_letters.store._TIMEOUT_S", 3.0)
    dead = store(own_broker)
    keep(dead, 1)
    own_broker.freeze()

    waits = _timed(lambda: keep(dead, 2), DeadLetterError)

    assert waits < 2 * 3.0, "waited more than once"
    own_broker.thaw()
    assert len(dead.ids()) <= 2


def test_a_restarted_store_is_found_again(own_broker):
    """The idle connection is closed then; the letter is kept by another."""
    dead = store(own_broker)
    keep(dead, 1)
    own_broker.stop()
    own_broker.start()

    assert keep(dead, 2) in dead.ids()


def test_a_connection_that_turns_out_dead_is_replaced(broker):
    """A load balancer that forgets idle connections tells only whoever uses one."""
    with _Proxy(broker.port) as proxy:
        dead = DeadLetters(f"redis://127.0.0.1:{proxy.port}/0", max_age_s=60)

        assert keep(dead, 1) in store(broker).ids()

    assert proxy.reset == 1


@pytest.mark.parametrize("forbidden", ["zadd", "hset"])
def test_a_letter_is_kept_whole_or_not_at_all(broker, forbidden):
    """What refuses one of its three parts, or dies between them, leaves none."""
    with _limited(broker, forbidden) as limited, pytest.raises(DeadLetterError):
        keep(limited, 1)

    assert list(broker.client().scan_iter()) == []


@pytest.mark.parametrize("forbidden", ["zrem", "hdel"])
def test_a_letter_is_removed_whole_or_not_at_all(broker, forbidden):
    """As it is kept."""
    dead = store(broker)
    letter_id = keep(dead, 1)

    with _limited(broker, forbidden) as limited, pytest.raises(DeadLetterError):
        list(limited.purge([letter_id]))

    assert dead.show(letter_id).event == event_of(1)
    assert dead.ids() == [letter_id]
    assert dead.count_by_reason() == {"http_400": 1}


def test_a_letter_that_does_not_fit_is_a_sentence(own_broker):
    """Out of memory: the caller hears of it, and the store is as before."""
    dead, client = store(own_broker), own_broker.client()
    keep(dead, 1)
    before = _dump(client)
    client.config_set("maxmemory", "1mb")

    with pytest.raises(DeadLetterError, match="is out of memory"):
        keep(dead, 2)

    assert _dump(client) == before


def test_a_full_store_can_be_emptied(own_broker):
    """By a replay as by a purge: they need no memory there."""
    dead, client = store(own_broker), own_broker.client()
    ids = [keep(dead, number) for number in range(4)]
    client.config_set("maxmemory", "1mb")
    published = []

    assert list(replay(dead, ids[:2], published.append)) == [Fate.REPLAYED] * 2
    assert list(dead.purge(ids[2:])) == [Fate.PURGED] * 2
    assert published == [event_of(0), event_of(1)]
    assert dead.ids() == []


def test_a_letter_is_kept_where_old_ones_cannot_be_removed(broker, caplog):
    """Scripts may be forbidden there; then the log says that letters stay past their age."""
    with _limited(broker, "eval") as limited, caplog.at_level(logging.WARNING):
        keep(limited, 1)

    assert len(store(broker).ids()) == 1
    assert "past their age could not be removed" in caplog.text


@contextlib.contextmanager
def _limited(broker, command):
    """The store, as seen by a user who may do all but one command."""
    client = broker.client()
    client.acl_setuser("limited", enabled=True, nopass=True, keys=["*"],
                       commands=["+@all", f"-{command}"])  # fmt: skip
    try:
        yield DeadLetters(broker.url.replace("127.", "limited:x@127."), max_age_s=DAY_S)
    finally:
        client.acl_deluser("limited")


class _Proxy:
    """Stands before a server; resets the first connection once something was sent over it."""

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.reset = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        self._thread.join(10)

    def _serve(self):
        first, _ = self._listener.accept()
        first.recv(1)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        self.reset += 1
        second, _ = self._listener.accept()
        with second, socket.create_connection(("127.0.0.1", self._target)) as server:
            ends = {second: server, server: second}
            while self._listener.fileno() != -1:
                for end in select.select(ends, [], [], 0.05)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


def _timed(call, error):
    start = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - start


def _dump(client):
    return {key: client.dump(key) for key in client.scan_iter()}
