"""``dead-letters``, on a real broker."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optly_celery.cli.exits import FAILED, INTERRUPTED, NOT_FOUND, OK, UNREACHABLE
from optly_celery.event.event import Event
from optly_celery.runtime.process import runtime_of

from ..commands import invoke
from ..conftest import celery_app
from ..letters import event_of, keep, kept, published_uuids, store
from ..support import US_URL, eventually, free_port, params_of, visitor_of

COMMAND = Path(sys.executable).with_name("optly-celery")


@pytest.fixture
def run(app):
    """Run a command for the test's app, in this process."""

    def run(*arguments, answer=None, of=app):
        return invoke("dead-letters", *arguments, app=of, answer=answer)

    return run


@pytest.fixture
def dead(broker):
    return store(broker)


def test_a_listing_is_a_table_without_personal_data(run, dead):
    """Reason, status and attempts, oldest failure first, and how many there are."""
    ids = [keep(dead, 1), keep(dead, 2, reason="not_https", status=None)]

    done = run("list")

    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", *ids]
    assert "http_400" in lines[1]
    assert " - " in lines[2]
    assert "project 111001, 1 event" in lines[1]
    assert done.stderr == "2 dead letters.\n"
    assert "visitor-" not in done.output


def test_a_listing_can_be_filtered_and_limited(run, dead):
    """A limit means the newest."""
    keep(dead, 1)
    others = [keep(dead, n, reason="not_https", status=None) for n in (2, 3)]

    assert _ids(run("list", "--json", "--reason", "not_https")) == others
    assert _ids(run("list", "--json", "--limit", "1")) == others[1:]
    assert len(_ids(run("list", "--json", "--status", "400"))) == 1
    assert _ids(run("list", "--json", "--older-than", "1h")) == []
    assert len(_ids(run("list", "--json", "--newer-than", "1h"))) == 3


def test_a_listing_for_machines_is_one_array(run, dead):
    """Also when there is nothing to list."""
    assert json.loads(run("list", "--json").stdout) == []
    keep(dead, 1)

    done = run("list", "--json")

    (letter,) = json.loads(done.stdout)
    assert letter["reason"] == "http_400"
    assert done.stderr == ""
    assert "visitor-" not in done.stdout


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_personal_data_is_shown_when_asked_for(run, dead, as_json):
    """Only then, in either form."""
    letter_id = keep(dead, 1)

    plain = run("show", letter_id, *as_json)
    whole = run("show", letter_id, "--show-payload", *as_json)

    assert "http_400" in plain.stdout
    assert "visitor-1" not in plain.output
    assert "visitor-1" in whole.stdout
    if as_json:
        assert json.loads(whole.stdout)["event"]["params"] == event_of(1).params


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_an_endpoint_s_words_are_shown_with_the_payload(run, dead, as_json):
    """They may quote it; and whatever they are, they do nothing to the terminal."""
    words = "visitor-1 is\x1b[2J too long\r\n\u202e"
    letter_id = dead.keep(kept(event_of(1), "t", answer=words))

    for command in (["list", *as_json], ["show", letter_id, *as_json]):
        assert "visitor-1" not in run(*command).output
    shown = run("show", letter_id, "--show-payload", *as_json).stdout

    assert "visitor-1 is\\u001b[2J too long\\r\\n\\u202e" in shown
    assert "\x1b" not in shown
    if as_json:
        assert json.loads(shown)["answer"] == words


def test_an_explanation_names_the_field_that_the_schema_refuses(run, dead):
    """Of a batch, the visitor and the event as well; not what stands in it."""
    event = batch(visitor_of("v-0", "u-0"), visitor_of("v-1", "u-1"))
    event["visitors"][1]["snapshots"][0]["events"][0]["revenue"] = "visitor-1 paid"
    letter_id = dead.keep(kept(Event.of(US_URL, event), "t"))

    plain = run("show", letter_id, "--explain")
    as_json = run("show", letter_id, "--explain", "--json")

    fault = "visitors[1].snapshots[0].events[0].revenue: integer wanted, string found"
    assert f"refused   {fault}\n" in plain.stdout
    assert json.loads(as_json.stdout)["refused"] == [fault]
    assert "visitor-1" not in plain.output + as_json.output


def test_an_explanation_of_many_faults_is_not_a_flood(run, dead):
    """The first twenty, and how many more; a machine gets them all."""
    event = batch(*({"visitor_id": "v"} for _ in range(30)))
    letter_id = dead.keep(kept(Event.of(US_URL, event), "t"))

    lines = run("show", letter_id, "--explain").stdout.splitlines()

    assert lines[-21].endswith("visitors[0]: snapshots missing")
    assert lines[-1].strip() == "and 10 more"
    assert len(json.loads(run("show", letter_id, "--explain", "--json").stdout)["refused"]) == 30


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event.of(US_URL, params_of()), "nothing by the Event API's schema"),
        (Event.raw(US_URL, None, "POST", None), "the whole: object wanted, null found"),
        (Event.raw(None, "{", None, None), "the whole: object wanted, string found"),
        (Event.raw(7, [1], None, None), "the whole: object wanted, array found"),
    ],
)
def test_an_explanation_has_a_sentence_for_anything(run, dead, event, said):
    """Also where the schema takes it, and where it is no event at all."""
    letter_id = dead.keep(kept(event, "t"))

    done = run("show", letter_id, "--explain")

    assert (done.exit_code, said in done.stdout) == (OK, True)


def test_an_explanation_needs_a_package_and_says_so(run, dead, monkeypatch):
    """It comes with the extra for tests, not with every worker."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    letter_id = keep(dead, 1)

    done = run("show", letter_id, "--explain")

    assert done.exit_code == FAILED
    assert "needs jsonschema: pip install 'optly-celery[testing]'" in done.stderr


@pytest.mark.parametrize("command", [["show"], ["replay", "--yes"], ["purge", "--yes"]])
def test_an_unknown_id_is_a_sentence_with_its_own_exit_code(run, dead, command):
    """Nothing else is touched."""
    keep(dead, 1)

    done = run(*command, "nonsense")

    assert done.exit_code == NOT_FOUND
    assert "o dead letter has the id nonsense" in done.stderr
    assert len(dead.ids()) == 1


def test_a_replay_publishes_the_letters_meant_and_no_other(run, dead, broker):
    """They leave the store for the queue."""
    keep(dead, 1)
    keep(dead, 2, reason="attempts_exhausted", status=503)
    keep(dead, 3, reason="attempts_exhausted", status=503)

    done = run("replay", "--reason", "attempts_exhausted", "--yes")

    assert (done.exit_code, done.output) == (OK, "2 dead letters replayed.\n")
    assert sorted(published_uuids(broker)) == ["uuid-2", "uuid-3"]
    assert dead.count_by_reason() == {"http_400": 1}


def test_a_replayed_event_is_delivered_as_it_was(run, dead, broker, collector, make_worker):
    """By a worker, byte for byte."""
    letter_id = keep(dead, 1)

    run("replay", letter_id, "--yes")
    make_worker(broker.url, url_override=collector.url)

    posted = eventually(lambda: collector.received)
    assert posted[0].body == event_of(1).body.encode()


def test_a_purge_deletes_without_publishing(run, dead, broker):
    """On purpose."""
    ids = [keep(dead, n) for n in range(3)]

    done = run("purge", ids[0], ids[0], ids[2], "--yes")

    assert (done.exit_code, done.output) == (OK, "2 dead letters purged.\n")
    assert dead.ids() == [ids[1]]
    assert list(published_uuids(broker)) == []


@pytest.mark.parametrize(
    ("command", "question"),
    [
        ("replay", "Publish 3 dead letters (http_400: 2, not_https: 1) again? [y/N]"),
        ("purge", "Delete 3 dead letters (http_400: 2, not_https: 1) for good, undelivered? [y/N]"),
    ],
)
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_changing_letters_asks_first(run, dead, command, question, answer):
    """With their number; no answer is no, and nothing but the result is on stdout."""
    for number, reason in enumerate(["http_400", "not_https", "http_400"]):
        keep(dead, number, reason=reason)

    done = run(command, "--all", "--json", answer=answer)

    assert done.exit_code == FAILED
    assert question in done.stderr
    assert "nothing was done" in done.stderr
    assert done.stdout == ""
    assert len(dead.ids()) == 3


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_a_yes_is_enough(run, dead, command):
    """Typed instead of given as an option."""
    keep(dead, 1)

    done = run(command, "--all", "--json", answer="y\n")

    assert done.exit_code == OK
    assert json.loads(done.stdout)["matched"] == 1
    assert dead.ids() == []


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_nothing_to_do_is_done(run, dead, command):
    """Without a question."""
    done = run(command, "--all", answer="")

    assert done.exit_code == OK
    assert done.stdout.startswith("0 dead letters")


def test_known_ids_are_done_beside_unknown_ones(run, dead):
    """So the same command, given again after an interruption, does the rest."""
    letter_id = keep(dead, 1)

    done = run("replay", letter_id, "nonsense", "--yes", "--json")

    assert done.exit_code == NOT_FOUND
    result = json.loads(done.stdout)
    assert (result["replayed"], result["unknown"]) == (1, ["nonsense"])
    assert dead.ids() == []


def test_what_is_no_event_stays_and_is_told(run, dead):
    """With what to do about it."""
    strange = Event.raw("https://h/", [], "POST", None)
    dead.keep(kept(strange, reason="params_not_an_object"))
    keep(dead, 1)

    done = run("replay", "--all", "--yes")

    assert done.exit_code == FAILED
    assert done.stdout == "1 dead letter replayed.\n"
    assert "delete with `dead-letters purge`" in done.stderr
    assert dead.count_by_reason() == {"params_not_an_object": 1}


def test_a_letter_in_the_hands_of_another_replay_is_told(run, dead):
    """It is still kept, and may stay so."""
    letter_id = keep(dead, 1)

    with dead.claim(letter_id):
        done = run("replay", "--all", "--yes", "--json")

    assert done.exit_code == FAILED
    assert json.loads(done.stdout)["busy"] == 1
    assert "in the hands of another replay" in done.stderr


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_broker_that_takes_no_more_stops_the_replay(run, dead, broker, monkeypatch, as_json):
    """What was published and what is left is told; what is left is still kept."""
    for number in range(5):
        keep(dead, number)

    with celery_app(f"redis://:secret@127.0.0.1:{free_port()}/0",
                    optly_dead_letter_url=broker.url) as away:  # fmt: skip
        # The first two still get through.
        runtime = runtime_of(away)
        publish, seen = runtime.publisher.publish, []
        monkeypatch.setattr(
            runtime.publisher,
            "publish",
            lambda event: publish(event) if len(seen) == 2 else seen.append(event),
        )
        done = run("replay", "--all", "--yes", *as_json, of=away)

    assert done.exit_code == UNREACHABLE
    assert (
        "Error: an event could not be published (broker_unreachable). 2 dead letters replayed, "
        "3 still kept. No event is lost; when the cause is gone, run the same command again."
    ) in done.stderr
    assert "secret" not in done.output
    assert len(dead.ids()) == 3
    if as_json:
        result = json.loads(done.stdout)
        assert (result["replayed"], result["remaining"]) == (2, 3)


@pytest.mark.parametrize(
    "command",
    [["list"], ["show", "1"], ["replay", "--all", "--yes"], ["purge", "--all", "--yes"]],
    ids=" ".join,
)
def test_a_store_that_is_away_is_a_sentence(run, command):
    """What happened, to what, and what to do next."""
    with celery_app(f"redis://:secret@127.0.0.1:{free_port()}/0") as away:
        done = run(*command, of=away)

    assert done.exit_code == UNREACHABLE
    assert re.search(r"store redis://127\.0\.0\.1:\d+/0 cannot be reached", done.stderr)
    assert "Check that it runs, and that optly_dead_letter_url" in done.stderr
    assert "secret" not in done.output


def test_somebody_who_watches_sees_a_bar(broker, dead, tmp_path):
    """On stderr; the result alone is on stdout."""
    for number in range(30):
        keep(dead, number)
    reader, terminal = pty.openpty()

    with _command(broker, "replay", "--all", "--yes", "--json", cwd=tmp_path, stderr=terminal) as p:
        out, _ = p.communicate(timeout=60)
        os.close(terminal)
        seen = os.read(reader, 65536).decode()
        os.close(reader)

    assert json.loads(out)["replayed"] == 30
    assert "replayed" in seen
    assert "100%" in seen


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_loses_no_letter(broker, dead, tmp_path, number):
    """Letters and messages together cover every event, at most one of them twice."""
    for n in range(2000):
        keep(dead, n)

    with _command(broker, "replay", "--all", "--yes", cwd=tmp_path, stderr=subprocess.PIPE) as p:
        eventually(lambda: broker.client().llen("optimizely") >= 200)
        p.send_signal(number)
        out, err = p.communicate(timeout=60)

    published = list(published_uuids(broker))
    kept = [_uuid(dead, letter_id) for letter_id in dead.ids()]
    assert set(published) | set(kept) == {f"uuid-{n}" for n in range(2000)}
    assert len(published) + len(kept) <= 2001
    assert 200 <= len(published) < 2000, "not in the middle"
    if number == signal.SIGINT:
        assert p.returncode == INTERRUPTED
        assert out == b""
        assert re.match(rb"Error: interrupted\. [\d,]+ dead letters replayed, [\d,]+ still", err)


def _command(broker, *arguments, cwd, **streams):
    return subprocess.Popen(
        [COMMAND, "dead-letters", *arguments],
        env={**os.environ, "OPTLY_BROKER_URL": broker.url}, cwd=cwd, stdout=subprocess.PIPE,
        # Where the tests run in a shell's background, SIGINT would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **streams,
    )  # fmt: skip


def _ids(done):
    return [letter["id"] for letter in json.loads(done.stdout)]


def _uuid(dead, letter_id):
    (visitor,) = dead.show(letter_id).event.visitors
    return visitor["snapshots"][0]["events"][0]["uuid"]


def batch(*visitors):
    return params_of() | {"visitors": list(visitors)}
