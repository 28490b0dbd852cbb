"""Run the shop and all that it needs on this machine, until Ctrl-C.

A broker (an embedded Valkey, or the Redis of OPTLY_BROKER_URL), a stand-in for Optimizely, the
worker and a web server. PORT is the shop's port, 8000 unless given.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from optly_celery.demo.broker import embedded_broker
from optly_celery.demo.interrupt import Interrupted, interruptible
from optly_celery.demo.processes import Worker, leash
from optly_celery.errors import OptlyCeleryError
from optly_celery.testing.stand_in import StandIn

HERE = Path(__file__).parent
LOOK_EVERY_S = 0.1


def run(port: int, check: Callable[[], None]) -> int:
    """Start everything, wait for the end of the web server, and leave nothing behind."""
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="optly-flask-shop-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        broker = os.environ.get("OPTLY_BROKER_URL") or stack.enter_context(embedded_broker(home))
        collector = stack.enter_context(StandIn())
        environment = os.environ | {
            "OPTLY_BROKER_URL": broker,
            "OPTLY_URL_OVERRIDE": collector.url,
            "OPTLY_OUTBOX_DIR": str(home / "outbox"),
            "COLLECTOR_URL": collector.url,
        }
        worker = Worker(home, environment)
        stack.callback(worker.kill)
        web = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port)],
            cwd=HERE, env=environment, start_new_session=True,
        )  # fmt: skip
        stack.callback(end, web)
        # Whatever ends this program, the others end as well.
        broker_pids = (int(file.read_text()) for file in home.glob("valkey.pid"))
        stack.enter_context(leash(-worker.pid, -web.pid, *broker_pids))
        worker.wait_until_ready(check)
        while web.poll() is None and not answers(port):
            wait(web, check)
        if web.poll() is None:
            print(f"\nThe shop is open: http://127.0.0.1:{port} (Ctrl-C closes it)\n", flush=True)
        while web.poll() is None:
            wait(web, check)
        return int(web.returncode)


def wait(web: subprocess.Popen[bytes], check: Callable[[], None]) -> None:
    """Wait a moment, or until the web server ends."""
    check()
    with contextlib.suppress(subprocess.TimeoutExpired):
        web.wait(LOOK_EVERY_S)


def end(web: subprocess.Popen[bytes]) -> None:
    """Stop the web server, and wait until it has."""
    web.terminate()
    web.wait()


def answers(port: int) -> bool:
    """Whether something listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    try:
        with interruptible() as check:
            sys.exit(run(int(os.environ.get("PORT", "8000")), check))
    except Interrupted:
        print("The shop is closed; nothing of it is left running.")
    except OptlyCeleryError as exc:
        sys.exit(f"Error: {exc}.")
