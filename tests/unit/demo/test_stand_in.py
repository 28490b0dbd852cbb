"""The stand-in for Optimizely, and what it makes of what it gets."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import requests

from optly_celery.demo.stand_in import StandIn

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


def test_it_runs_on_its_own_until_it_is_told_to_end():
    """Says where to POST, and ends with 0: so it fits into a container."""
    with subprocess.Popen(
        [sys.executable, "-m", "optly_celery.demo.stand_in"], stdout=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert post(url, visitor_of("ann", "u-1")) == 204
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_told(stand_in):
    """In a sentence."""
    port = stand_in.url.split(":")[2].split("/")[0]

    done = subprocess.run(
        [sys.executable, "-m", "optly_celery.demo.stand_in", "--port", port],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port}")
