"""Processes that use a client of `create_client`, for tests: which of them dispatch what.

    python -m tests.sdk.client_app OUTBOX_BROKER_URL HOW [DATAFILE_URL]

The client is made at import, as in a web app, and used before it forks. HOW is one word of: fork,
multiprocessing-fork, multiprocessing-spawn, exit, poll.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

from celery import Celery

import optly_celery

from ..support import eventually

DATAFILE = (Path(__file__).parent / "datafile.json").read_text()

app = Celery("client_app", broker=sys.argv[1] if len(sys.argv) > 1 else None)
app.conf.task_ignore_result = True
app.conf.optly_delivery = os.environ.get("DELIVERY", "direct")


def polling(**options):
    """A config manager as an app makes its own, asking often."""
    from optimizely.config_manager import PollingConfigManager

    return PollingConfigManager("sdk_key", url=sys.argv[3], update_interval=0.05, **options)


client = optly_celery.create_client(
    **{"config_manager": polling} if len(sys.argv) > 3 else {"datafile": DATAFILE}
)
heard: list[object] = []
client.notification_center.add_notification_listener("LOG_EVENT:log_event", heard.append)


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def use(name: str) -> None:
    client.track("purchase", name)
    say(who=name, heard=len(heard), **optly_celery.stats())


def in_child(url: str) -> None:
    app.conf.broker_url = url
    use("child")


def revision() -> str:
    return client.get_optimizely_config().revision


def main() -> None:
    how = sys.argv[2]
    use("parent")
    if how == "fork":
        if not os.fork():
            use("child")
            return
        os.wait()
        use("parent again")
    elif how.startswith("multiprocessing"):
        context = multiprocessing.get_context(how.partition("-")[2])
        process = context.Process(target=in_child, args=(sys.argv[1],))
        process.start()
        process.join()
    elif how == "poll":
        # Each line of standard input is a revision to wait for, in the parent and in a child.
        ours, theirs = os.pipe(), os.pipe()
        if not os.fork():
            os.close(ours[1])
            with os.fdopen(ours[0]) as told, os.fdopen(theirs[1], "w") as answers:
                for line in told:
                    eventually(lambda line=line: revision() == line.strip(), timeout_s=20)
                    answers.write(f"{line.strip()} {threading.active_count()}\n")
                    answers.flush()
            os._exit(0)
        os.close(ours[0])
        with os.fdopen(ours[1], "w") as tell, os.fdopen(theirs[0]) as answers:
            for line in sys.stdin:
                eventually(lambda line=line: revision() == line.strip(), timeout_s=20)
                tell.write(line)
                tell.flush()
                say(parent=revision(), child=answers.readline().split()[0])


if __name__ == "__main__":
    main()
