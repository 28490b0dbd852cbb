"""The collector that runs on its own, what it makes of what it gets, and how it is told."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import requests

from optly_celery.testing.stand_in import StandIn, outage

from ...support import params_of, visitor_of


@pytest.fixture
def stand_in():
    with StandIn() as running:
        yield running


def decided(visitor, uuid, variation):
    made = visitor_of(visitor, uuid)
    metadata = {"flag_key": "shipping", "variation_key": variation}
    made["snapshots"][0]["decisions"][0]["metadata"] = metadata
    return made


def bought(visitor, uuid):
    made = visitor_of(visitor, uuid)
    made["snapshots"] = [
        {"events": [{"uuid": uuid, "key": "purchase", "timestamp": 1_700_000_000_000}]}
    ]
    return made


def post(url, *visitors):
    params = params_of() | {"visitors": list(visitors)}
    return requests.post(url, json=params, timeout=5).status_code


def posts(stand_in, query=""):
    return requests.get(stand_in.url.replace("/v1/events", f"/posts{query}"), timeout=5).json()


def order(stand_in, answers):
    url = stand_in.url.replace("/v1/events", "/script")
    assert requests.put(url, json=answers, timeout=5).status_code == 204


def run(*arguments):
    """The program with these options, or by this name."""
    program = [] if arguments[0].startswith("optly") else ["optly_celery.testing.stand_in"]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *program, *arguments], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_visitors_and_buyers_are_counted_by_variation(stand_in):
    """A visitor counts once, and an event that comes again is the same one."""
    post(stand_in.url, decided("ann", "u-1", "on"), decided("bob", "u-2", "off"))
    post(stand_in.url, bought("ann", "u-3"), decided("ann", "u-4", "on"))
    post(stand_in.url, bought("ann", "u-3"))

    told = requests.get(stand_in.url, timeout=5).json()

    assert told == {
        "events": 4,
        "refused": 0,
        "flags": {
            "shipping": {
                "off": {"visitors": 1, "converted": 0},
                "on": {"visitors": 1, "converted": 1},
            }
        },
    }


def test_what_the_event_api_does_not_document_is_refused_and_counted(stand_in):
    """Whether the request asks for strictness or not; it does not spoil what was counted."""
    assert post(stand_in.url, decided("ann", "u-1", "on")) == 204
    assert post(stand_in.url, {"visitor_id": 7}) == 400
    assert requests.post(stand_in.url, data=b"{", timeout=5).status_code == 400

    told = requests.get(stand_in.url, timeout=5).json()
    assert (told["events"], told["refused"]) == (1, 2)


def test_every_post_is_told_with_its_answer_and_its_uuids(stand_in):
    """In the order in which they came; what is no event has no uuids. Questions are no POSTs."""
    post(stand_in.url, decided("ann", "u-1", "on"), bought("ann", "u-2"))
    requests.post(stand_in.url, data=b"{", timeout=5)
    post(stand_in.url, bought("bob", "u-3"))

    assert posts(stand_in) == [[204, ["u-1", "u-2"]], [400, []], [204, ["u-3"]]]
    assert posts(stand_in, "?from=2") == [[204, ["u-3"]]]
    assert posts(stand_in, "?from=3") == []


def test_the_next_answers_are_scripted_by_http(stand_in):
    """Each a status and a delay; a later script replaces what is left of an earlier one."""
    order(stand_in, [[503, 0], [429, 0.0], [500, 0]])
    assert [post(stand_in.url, decided("ann", "u-1", "on")) for _ in range(2)] == [503, 429]

    order(stand_in, [[None, 0]])
    with pytest.raises(requests.ConnectionError):
        post(stand_in.url, decided("ann", "u-1", "on"))

    assert post(stand_in.url, decided("ann", "u-1", "on")) == 204
    assert [status for status, _ in posts(stand_in)] == [503, 429, None, 204]
    told = requests.get(stand_in.url, timeout=5).json()
    assert (told["events"], told["refused"]) == (1, 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/script", b"", 400), ("/script", b"7", 400), ("/script", b"[503]", 400),
     ("/script", b'[[503, "soon"]]', 400), ("/weather", b"[]", 404)],
)  # fmt: skip
def test_an_order_that_is_none_is_refused(stand_in, path, body, status):
    """And changes nothing."""
    url = stand_in.url.replace("/v1/events", path)

    assert requests.put(url, data=body, timeout=5).status_code == status
    assert post(stand_in.url, decided("ann", "u-1", "on")) == 204


def test_one_that_is_not_strict_takes_anything(monkeypatch):
    """And needs no jsonschema for it; strange events spoil no results."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    strange = decided("ann", "u-1", ["on"])
    strange["visitor_id"] = ["ann"]

    with StandIn(strict=False) as running:
        assert post(running.url, strange, bought(7, "u-2")) == 204
        assert requests.post(running.url, data=b"{", timeout=5).status_code == 204
        told = requests.get(running.url, timeout=5).json()

    assert (told["events"], told["refused"]) == (2, 0)


@pytest.mark.parametrize("program", ["optly_celery.testing.stand_in", "optly_celery.demo.stand_in"])
def test_it_runs_on_its_own_until_it_is_told_to_end(program):
    """By either name, says where to POST, and ends with 0: so it fits into a container."""
    with run(program) as process:
        url = process.stdout.readline().strip()
        assert post(url, visitor_of("ann", "u-1")) == 204
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_it_ends_with_whoever_holds_its_standard_input():
    """So with the process that started it, however that ends; until then it has its outage."""
    with run("--until-eof", "--outage", "2", "3600") as process:
        url = process.stdout.readline().strip()
        assert [post(url, visitor_of("ann", "u-1")) for _ in range(3)] == [204, 503, 503]
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_told(stand_in):
    """In a sentence."""
    port = stand_in.url.split(":")[2].split("/")[0]

    with run("--port", port) as process:
        assert process.wait(10) == 1
        assert process.stderr.read().startswith(f"Error: cannot listen on 127.0.0.1:{port}")


def test_an_outage_starts_at_a_request_and_ends_by_the_clock():
    """Requests 1 and 2 pass, 3 and 4 meet the outage, 5 comes after it."""
    times = iter([0.0, 1.0, 10.0, 10.0, 11.9, 12.0])
    away = outage(starts_at=3, lasts_s=2.0, clock=lambda: next(times))

    answers = [away("POST", "/", b"") for _ in range(5)]

    assert [a and a.status for a in answers] == [None, None, 503, 503, None]
