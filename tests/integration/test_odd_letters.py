"""Dead letters that somebody else has written: they are shown, removed, and hide no other."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optly_celery.cli.exits import NOT_FOUND, OK, UNREACHABLE
from optly_celery.dead_letters.letter import Fate, Filter
from optly_celery.dead_letters.letter_id import meant, shown
from optly_celery.dead_letters.replay import replay
from optly_celery.errors import DeadLetterError
from optly_celery.event.event import Event
from optly_celery.status.questions import WorkerStatus
from optly_celery.status.verdict import Status

from ..commands import invoke
from ..conftest import celery_app
from ..letters import DAY_S, Clock, event_of, keep, kept, store
from ..odd_letters import BASE, LANGUAGE, NOW, OBEYED, ODD, is_obeyed, write
from ..support import eventually

EACH = pytest.mark.parametrize("odd", ODD, ids=[odd.name for odd in ODD])
TYPES = {"events": "hash", "facts": "hash", "times": "zset"}
KINDS = ("string", "list", "set", "hash", "zset", "stream")


@pytest.fixture
def dead(broker):
    return store(broker)


@pytest.fixture
def run(app):
    """Run a command for the test's app, in this process."""

    def run(*arguments):
        return invoke("dead-letters", *arguments, app=app)

    return run


@EACH
def test_an_odd_letter_is_listed_shown_and_purged_and_its_neighbours_stay(dead, broker, odd):
    """As unreadable, or by its reason where all that is known of it can be read."""
    neighbours = [keep(dead, 1), keep(dead, 2)]
    write(broker, odd)

    listed = {letter.id: letter for letter in dead.list()}
    (odd_id,) = listed.keys() - set(neighbours)
    assert listed.keys() >= set(neighbours)
    assert listed[odd_id].reason == odd.reason
    assert listed[odd_id] == next(dead.pick([odd_id]))
    whole = dead.show(odd_id)
    assert (whole.id, whole.reason) == (odd_id, odd.reason)
    assert not is_obeyed(odd_id)
    assert len(odd_id) <= 64
    assert dead.count_by_reason().get(odd.reason, 0) == 1 + 2 * (odd.reason == "http_400")
    assert odd_id in [letter.id for letter in dead.list(Filter(reason=odd.reason))]

    assert list(dead.purge([odd_id])) == [Fate.PURGED]
    assert sorted(dead.ids()) == sorted(neighbours)
    assert [dead.show(n).event for n in neighbours] == [event_of(1), event_of(2)]
    assert list(replay(dead, neighbours, lambda _: None)) == [Fate.REPLAYED] * 2
    assert broker.client().keys() == []


@EACH
def test_an_odd_letter_is_replayed_where_its_event_is_one(dead, broker, odd):
    """Whatever its facts are; otherwise it stays, and the others are replayed."""
    neighbours = [keep(dead, 1), keep(dead, 2)]
    write(broker, odd)
    published = []

    fates = dict(zip(dead.ids(), replay(dead, dead.ids(), published.append), strict=True))

    assert [fates.pop(neighbour) for neighbour in neighbours] == [Fate.REPLAYED] * 2
    (fate,) = fates.values()
    if odd.is_event is not None:
        assert fate is (Fate.REPLAYED if odd.is_event else Fate.NO_EVENT)
    assert len(published) == 2 + (fate is Fate.REPLAYED)
    assert len(dead.ids()) == (fate is Fate.NO_EVENT)


def test_all_odd_letters_together_hide_nothing(dead, broker):
    """Each is there once, in one listing, and those that cannot be read go at one word."""
    neighbours = [keep(dead, number) for number in range(3)]
    write(broker, *ODD)

    assert len(dead.ids()) == len(set(dead.ids())) == len(ODD) + 3
    assert len(list(dead.list())) == len(ODD) + 3
    counts = dead.count_by_reason()
    assert counts == {
        reason: 3 * (reason == "http_400") + sum(odd.reason == reason for odd in ODD)
        for reason in ("http_400", "unreadable")
    }

    unreadable = [letter.id for letter in dead.list(Filter(reason="unreadable"))]
    assert set(dead.purge(unreadable)) == {Fate.PURGED}
    assert dead.count_by_reason() == {"http_400": counts["http_400"]}
    assert set(neighbours) <= set(dead.ids())
    assert len(list(dead.purge(dead.ids()))) == counts["http_400"]
    assert broker.client().keys() == []


def test_ages_leave_out_no_odd_letter_for_good(broker):
    """One without a time is older than any; whoever asks for the new ones does not see it."""
    clock = Clock(NOW + DAY_S)
    dead = store(broker, clock=clock)
    write(broker, *ODD)
    new = keep(dead)

    timeless = {shown(odd.id) for odd in ODD if odd.time is None}
    assert timeless
    assert timeless <= {letter.id for letter in dead.list(Filter(older_than_s=60))}
    found = {letter.id for letter in dead.list(Filter(newer_than_s=60))}
    assert new in found
    assert not timeless & found
    newest_first = [letter.id for letter in dead.list(newest_first=True)]
    assert newest_first == dead.ids()[::-1]


@given(st.binary(max_size=80))
def test_any_id_is_text_and_comes_back(raw):
    """Text for a URL, a form and a command line, and for no two ids the same."""
    text = shown(raw)

    assert re.fullmatch("[0-9A-Za-z_][0-9A-Za-z_.-]{0,63}", text)
    assert text not in ("act", "add")  # other pages of the admin site
    assert meant(text) == raw or text.startswith("long-")


@pytest.mark.parametrize(
    "odd", [odd for odd in ODD if odd.name.startswith("id ")], ids=lambda odd: odd.name
)
def test_an_id_may_be_typed_as_it_is(dead, broker, odd):
    """Somebody who has seen it in Redis need not know how it is shown here."""
    try:
        typed = odd.id.decode()
    except UnicodeDecodeError:
        typed = shown(odd.id)
    write(broker, odd)
    if meant(typed) != odd.id:  # it is how another id is shown
        typed = shown(odd.id)

    assert dead.show(typed).reason == "http_400"
    with dead.claim(typed) as first, dead.claim(shown(odd.id)) as second:
        assert (first, second) == (True, False)
    assert list(dead.purge([typed])) == [Fate.PURGED]


def test_ids_too_long_to_be_shown_are_found_by_a_store_that_has_not_seen_them(dead, broker):
    """The one that lists them and the one that purges them are two processes."""
    raws = [b"x" * 5000, b"y" * 5000, b"\xff" * 100]
    for raw in raws:
        broker.client().zadd(f"{BASE}times", {raw: NOW})
    ids = dead.ids()

    assert all(text.startswith("long-") for text in ids)
    assert [store(broker).show(text).reason for text in ids] == ["unreadable"] * 3
    assert list(store(broker).purge([*ids, "long-0123456789abcdef"])) == [
        *[Fate.PURGED] * 3, Fate.GONE,
    ]  # fmt: skip


def test_a_worker_keeps_what_has_half_characters_in_its_names(dead, caplog):
    """The task's id and the URL may be anybody's; so may be what is counted against it."""
    odd = Event.raw(OBEYED, {"a": OBEYED}, None, None)
    with caplog.at_level(logging.WARNING):
        letter_id = dead.keep(kept(odd, OBEYED, reason=OBEYED))

    assert dead.show(letter_id).event == odd
    assert [dead.strike(OBEYED), dead.strike(OBEYED)] == [1, 2]
    dead.forgive(OBEYED)
    assert not any(is_obeyed(record.getMessage()) for record in caplog.records)


@pytest.mark.parametrize(
    ("key", "kind"), [(key, kind) for key, own in TYPES.items() for kind in KINDS if kind != own]
)
def test_a_key_of_another_type_is_a_sentence(dead, broker, app, key, kind):
    """Whoever looks is told; nothing is raised that is no error of this package."""
    keep(dead, 1)
    client, name = broker.client(), BASE + key
    client.delete(name)
    {
        "string": lambda: client.set(name, "x"),
        "list": lambda: client.rpush(name, "x"),
        "set": lambda: client.sadd(name, "x"),
        "hash": lambda: client.hset(name, "x", "y"),
        "zset": lambda: client.zadd(name, {"x": 1}),
        "stream": lambda: client.xadd(name, {"x": "y"}),
    }[kind]()

    for call in (dead.ids, dead.count_by_reason, lambda: list(dead.list()), lambda: keep(dead, 2),
                 lambda: dead.remove(["1"])):  # fmt: skip
        with pytest.raises(DeadLetterError, match="a key of it is of another type"):
            call()
    for command in (["list"], ["list", "--json"], ["purge", "--all", "--yes"],
                    ["replay", "--all", "--yes"]):  # fmt: skip
        done = invoke("dead-letters", *command, app=app)
        assert done.exit_code == UNREACHABLE
        assert "a key of it is of another type" in done.stderr
    done = invoke("status", "--timeout", "0.2", app=app)
    assert "a key of it is of another type" in done.stdout


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "9" * 5000, b"\xff", "٣"])
def test_a_count_that_is_no_number_is_a_sentence(dead, broker, app, value):
    """It says how many were removed for their age, and is not worth a traceback."""
    broker.client().set(f"{BASE}expired", value)

    with pytest.raises(DeadLetterError, match="no number under"):
        dead.expired()
    assert "no number under" in invoke("status", "--timeout", "0.2", app=app).stdout


def test_a_listing_has_a_row_for_each_odd_letter_and_obeys_none(run, dead, broker):
    """Nothing in it moves the cursor, turns the line around or begins another line."""
    keep(dead, 1)
    write(broker, *ODD)

    done = run("list")

    assert done.exit_code == OK
    assert not is_obeyed(done.stdout, lines=True)
    assert len(done.stdout.splitlines()) == 1 + 1 + len(ODD)
    assert {line.split(" ")[0] for line in done.stdout.splitlines()[1:]} == set(dead.ids())
    assert LANGUAGE in done.stdout
    assert "\\x1b[2J\\x07\\r\\n\\x7f\\x9b1m\\x85\\u2028" in done.stdout


def test_json_stays_json(run, dead, broker):
    """For any reader, also of what Python alone would call JSON; in each form that there is."""
    keep(dead, 1)
    write(broker, *ODD)

    (*letters,) = _strict(run("list", "--json").stdout)
    assert len(letters) == len(ODD) + 1
    for odd_id in dead.ids():
        _strict(run("show", odd_id, "--json").stdout)
        whole = _strict(run("show", odd_id, "--json", "--show-payload", "--explain").stdout)
        assert whole["id"] == odd_id
    found = _strict(run("purge", "--all", "--yes", "--json", "--reason", "x").stdout or "{}")
    assert found == {}
    assert _strict(run("purge", "--all", "--yes", "--json").stdout)["purged"] == len(ODD) + 1


@EACH
def test_each_command_takes_the_id_that_the_listing_shows(run, dead, broker, odd):
    """Show, replay and purge, with nothing that a terminal would obey, and no traceback."""
    write(broker, odd)
    (odd_id,) = dead.ids()

    for command in (["show", odd_id], ["show", odd_id, "--show-payload", "--explain"],
                    ["replay", odd_id, "--yes"]):  # fmt: skip
        done = run(*command)
        assert not is_obeyed(done.output, lines=True)
        assert done.exit_code in ([OK] if command[0] == "show" else [OK, 1])
    write(broker, odd)
    assert run("purge", odd_id, "--yes").output == "1 dead letter purged.\n"
    done = run("show", odd_id)
    assert done.exit_code == NOT_FOUND
    assert not is_obeyed(done.output, lines=True)


def test_what_is_typed_is_escaped_as_well(run):
    """It may have been copied from anywhere."""
    for command in (["show", OBEYED], ["purge", OBEYED, "--yes"], ["replay", OBEYED, "--yes"]):
        done = run(*command)
        assert done.exit_code == NOT_FOUND
        assert not is_obeyed(done.output, lines=True)


def test_a_thousand_made_up_reasons_do_not_fill_the_screen(dead, broker, app):
    """Those that are most are named, and the others counted."""
    for number in range(1000):
        keep(dead, number, reason=f"made-up-{number}")
    keep(dead, 5000)
    keep(dead, 5001)

    done = invoke("status", "--timeout", "0.2", app=app)

    assert "(http_400: 2, " in done.stdout
    assert "981 other reasons: 981)" in done.stdout
    assert len(done.stdout) < 2000


@pytest.mark.parametrize("way", ["manage.py", "flask"])
def test_other_doors_to_the_commands_escape_as_well(dead, broker, way):
    """The commands are the same ones, about the framework's Celery app."""
    write(broker, *ODD)

    for command in (["list"], ["list", "--json"], ["purge", "--reason", "unreadable", "--yes"]):
        printed = DOORS[way](broker, ["dead-letters", *command])
        assert not is_obeyed(printed, lines=True)
        if command == ["list"]:
            assert len(printed.splitlines()) >= 1 + len(ODD)
    assert dead.count_by_reason().keys() == {"http_400"}


def test_status_shows_odd_hosts_and_workers_in_lines_of_their_own(app, broker, monkeypatch):
    """What is parked for whom, and who answers, comes from Redis as well; it hides no other."""
    client = broker.client()
    odd = OBEYED.encode(errors="surrogatepass")
    hosts = [odd, b"\xff\n", b"", b"a b/c", b"logx.optimizely.com"]
    client.sadd("optimizely.parked", *hosts)
    for host in hosts:
        client.rpush(b"optimizely.parked." + host, "x", "y")

    done = invoke("status", "--timeout", "0.2", app=app)
    assert not is_obeyed(done.output, lines=True)
    assert done.stdout.count("parked        2 for ") == len(hosts)
    assert "2 for logx.optimizely.com\n" in done.stdout
    as_json = invoke("status", "--timeout", "0.2", "--json", app=app).stdout
    assert len(_strict(as_json)["parked"]) == len(hosts)

    worker = WorkerStatus(OBEYED, True, True, (OBEYED,))
    found = Status(broker=OBEYED, queue=OBEYED, waiting=0, workers=(worker,),
                   parked={OBEYED: 1}, dead_letters={OBEYED: 1}, unanswered=(OBEYED,))  # fmt: skip
    module = sys.modules["optly_celery.cli.status"]  # the package's attribute is the command
    monkeypatch.setattr(module, "collect", lambda *_, **__: found)
    for options in ([], ["--json"]):
        assert not is_obeyed(invoke("status", *options, app=app).output, lines=True)


def test_a_worker_logs_an_odd_host_in_one_line(broker, make_worker):
    """Who writes into the set of parked hosts does not write the worker's log."""
    client = broker.client()
    for host in ("a\nWARNING all is well", "b\x1b[2J\u202e", "c"):
        client.sadd("optimizely.parked", host)
        client.rpush(f"optimizely.parked.{host}", "x")
    worker = make_worker(broker.url)

    eventually(lambda: worker.output().count("deliveries to ") >= 3, what=worker.output)

    said = [line for line in worker.output().split("\n") if "deliveries to " in line]
    assert not any(line.startswith("WARNING all is well") for line in worker.output().split("\n"))
    assert not is_obeyed("".join(said))
    assert "deliveries to a\\nWARNING all is well paused" in worker.output()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding_shows_every_row(dead, broker, encoding):
    """What it has no sign for is an escape, not the end of the listing."""
    keep(dead, 1)
    write(broker, *ODD)
    done = subprocess.run(
        [sys.executable, "-m", "optly_celery", "dead-letters", "list"],
        env=os.environ | {"OPTLY_BROKER_URL": broker.url, "PYTHONIOENCODING": encoding},
        capture_output=True, check=True,
    )  # fmt: skip

    assert len(done.stdout.decode(encoding).splitlines()) == len(ODD) + 2


def _by_manage(broker, arguments):
    from django.core.management import call_command

    from ..contrib import django_site  # noqa: F401 - configures Django

    printed = StringIO()
    with celery_app(broker.url):
        call_command("optimizely", *arguments, stdout=printed)
    return printed.getvalue()


def _by_flask(broker, arguments):
    from ..contrib.test_flask import create_app

    app = create_app(celery={"broker_url": broker.url})
    done = app.test_cli_runner().invoke(args=["optimizely", *arguments])
    assert done.exit_code == OK
    return done.output


DOORS = {"manage.py": _by_manage, "flask": _by_flask}


def _strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert not is_obeyed(text, lines=True)
    return json.loads(text, parse_constant=refuse)
