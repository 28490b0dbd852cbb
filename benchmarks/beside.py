"""The rate of a host that is well, alone and beside one that is down; one worker, one queue.

    python benchmarks/beside.py [--events 2000] [--rounds 3] [--latency MS] [-- WORKER OPTION...]

In each round the worker is given so many events of the sound host, and then as many mixed one to
one with events of the other one, which it has paused: these cost their receipt, and a move to the
list where they wait. Printed are events of the sound host a second, from the first quarter of them
on, the medians of all rounds, and what share the second is of the first. Needs openssl.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import HEADERS, Worker, broker, free_port, params_of, say, table, wait_for

from optly_celery import dispatch
from optly_celery.celery import app as standalone
from optly_celery.testing.server import Answer, Server

LIMIT_S = 300.0
_SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    options = parse()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certify(directory)
        url = stack.enter_context(broker())
        sound, count = stack.enter_context(host("localhost", directory, options.latency / 1000))
        down, asked = stack.enter_context(host("127.0.0.1", directory, status=503))
        env = {"OPTLY_BROKER_URL": url, "OPTLY_ALLOWED_HOSTS": "127.0.0.1,localhost"}
        env |= {"REQUESTS_CA_BUNDLE": str(directory / "cert.pem")}
        worker = Worker("optly_celery", "--loglevel", "warning", *options.worker, env=env)
        stack.enter_context(worker)
        standalone.conf.broker_url = url
        standalone.set_current()

        fill(sound, down, 500)  # imports done, connections open, and the one that is down paused
        wait(count, 500)
        alone, beside = [], []
        for number in range(options.rounds):
            alone.append(rate(count, options.events, sound, None))
            beside.append(rate(count, options.events, sound, down))
            say(f"round {number + 1} of {options.rounds}: {alone[-1]:.0f}, {beside[-1]:.0f}")
        if not worker.is_alive():
            raise SystemExit(worker.log())
        per_s = [statistics.median(each) for each in (alone, beside)]
        row = [f"{per_s[0]:.0f}", f"{per_s[1]:.0f}", f"{100 * per_s[1] / per_s[0]:.0f} %"]
        print(table(["", "alone /s", "beside /s", "share"], [["a sound host", *row]]))
        say(f"the one that is down was asked {asked.value} times")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=int, default=30, metavar="MS", help="of the sound host")
    parser.add_argument("worker", nargs="*", metavar="-- WORKER OPTION")
    return parser.parse_args()


def rate(count: Any, events: int, sound: str, down: str | None) -> float:
    seen = count.value
    fill(sound, down, events)
    wait(count, seen + events // 4)
    first, began = count.value, time.monotonic()
    wait(count, seen + events)
    return (seen + events - first) / (time.monotonic() - began)


def fill(sound: str, down: str | None, events: int) -> None:
    for number in range(events):
        for url in filter(None, (sound, down)):
            dispatch(url, params_of(number), headers=HEADERS)


def wait(count: Any, number: int) -> None:
    ends = time.monotonic() + LIMIT_S
    while count.value < number:
        if time.monotonic() > ends:
            raise SystemExit(f"{count.value} of {number} delivered in {LIMIT_S:.0f} s")
        time.sleep(0.005)


def certify(directory: Path) -> None:
    """A certificate for both names."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise SystemExit("needs the openssl command")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


@contextlib.contextmanager
def host(
    name: str, directory: Path, latency_s: float = 0.0, status: int = 204
) -> Iterator[tuple[str, Any]]:
    """One in a process of its own; gives its URL and how often it was asked."""
    count, port = _SPAWN.Value(ctypes.c_long, 0), free_port()
    arguments = (port, str(directory), latency_s, status, count)
    process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    try:
        wait_for(port)
        yield f"https://{name}:{port}/v1/events", count
    finally:
        process.kill()
        process.join()


def _serve(port: int, directory: str, latency_s: float, status: int, count: Any) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")

    def choose(_method: str, _target: str, _body: bytes) -> Answer:
        count.value += 1
        return Answer(status)

    with Server(port=port, latency_s=latency_s, choose=choose, keep=False, tls=tls):
        signal.pause()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["XDG_STATE_HOME"] = home
        main()
