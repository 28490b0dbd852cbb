"""Run the shop and all that it needs on this machine, until Ctrl-C.

A broker (an embedded Valkey, or the Redis of REDIS_URL), a stand-in for Optimizely, the worker and
a web server. PORT is the shop's port, 8000 unless given.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from optly_celery.demo.broker import embedded_broker
from optly_celery.demo.interrupt import Interrupted, interruptible
from optly_celery.demo.processes import leash
from optly_celery.errors import OptlyCeleryError
from optly_celery.testing.stand_in import StandIn

HERE = Path(__file__).parent
LOOK_EVERY_S = 0.1


def run(port, check):
    """Start everything, wait for the end of the web server, and leave nothing behind."""
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="optly-django-shop-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        broker = os.environ.get("REDIS_URL") or stack.enter_context(embedded_broker(home))
        collector = stack.enter_context(StandIn())
        environment = os.environ | {
            "REDIS_URL": broker,
            "COLLECTOR_URL": collector.url,
            "SECRET_KEY": secrets.token_hex(),
            "SHOP_HOME": str(home),
            "DJANGO_RUNSERVER_HIDE_WARNING": "true",
        }
        manage = [sys.executable, "manage.py"]
        subprocess.run([*manage, "migrate", "-v", "0"], cwd=HERE, env=environment, check=True)

        def start(*command):
            # In a session of its own: Ctrl-C reaches this program alone, which ends the others.
            options = {"cwd": HERE, "env": environment, "start_new_session": True}
            process = subprocess.Popen(command, **options)
            stack.callback(end, process)
            return process

        celery = [sys.executable, "-m", "celery", "-q", "-A", "shop"]
        worker = start(
            *celery, "worker", "-Q", "celery,optimizely", "-P", "threads", "-c", "4",
            "-l", "warning",
        )  # fmt: skip
        web = start(*manage, "runserver", "--noreload", f"127.0.0.1:{port}")
        # Whatever ends this program, the others end as well.
        broker_pids = (int(file.read_text()) for file in home.glob("valkey.pid"))
        stack.enter_context(leash(-worker.pid, -web.pid, *broker_pids))
        while web.poll() is None and not answers(port):
            wait(web, check)
        if web.poll() is None:
            print(f"\nThe shop is open: http://127.0.0.1:{port} (Ctrl-C closes it)\n", flush=True)
        while web.poll() is None:
            wait(web, check)
        return int(web.returncode)


def wait(web, check):
    """Wait a moment, or until the web server ends."""
    check()
    with contextlib.suppress(subprocess.TimeoutExpired):
        web.wait(LOOK_EVERY_S)


def end(process):
    """Stop a process, and wait until it has."""
    process.terminate()
    process.wait()


def answers(port):
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
