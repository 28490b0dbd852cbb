"""Behind every server that people use: whoever was answered has both events at the endpoint.

Processes are recycled and then stopped as a deploy would do it. ``python -m tests.servers`` prints
what arrives, and what does with the SDK's own dispatcher: docs/servers.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optly_celery.testing.schema import strict_check

from ..line import Line
from ..support import eventually
from .cases import CASES, ENDING, HOOKLESS, SERVERS
from .ending import GO
from .run import Run

VISITS = 500
DIRECT = ("gunicorn sync preload", "uwsgi", "uvicorn")


@pytest.fixture(scope="session")
def line(tmp_path_factory):
    """A broker, a worker that asks for strictness, and an endpoint that looks at each body."""
    with Line(tmp_path_factory.mktemp("servers") / "line", strict=True) as running:
        running.collector.accepts = strict_check()
        running.work()
        yield running
        assert list(running.dead.list()) == []


def _marked(cases):
    return [
        pytest.param(case, id=case.name, marks=pytest.mark.slow if case.slow else ())
        for case in cases
    ]


@pytest.mark.parametrize("case", _marked(SERVERS))
def test_a_graceful_stop_leaves_no_event_behind(line, tmp_path, case):
    """500 visits, some of them to processes that are recycled meanwhile, SIGTERM: nothing left."""
    account = Run(case, line, tmp_path).serve(VISITS)

    assert (account.lost, account.left, account.duplicates) == (0, 0, 0), account
    assert account.exit_code == case.exit_code


def test_uwsgis_signals_do_not_cut_exit_hooks_short(line, tmp_path):
    """A worker ends by itself, and is told to end and to reload while it does; nothing is left."""
    ends = tmp_path / "ends"
    ends.mkdir()
    run = Run(ENDING, line, tmp_path)
    run.env["SHOP_ENDS"] = str(ends)
    with ThreadPoolExecutor(1) as serving:
        account = serving.submit(run.serve, 4)
        pid = int(eventually(lambda: next(ends.iterdir(), None), what="a worker ends").name)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
        (ends / GO).touch()

    found = account.result()
    assert (found.lost, found.left, found.duplicates) == (0, 0, 0), found
    assert found.processes == 1  # another one would have relayed what this one left


@pytest.mark.parametrize("case", _marked(HOOKLESS))
def test_what_a_server_without_exit_hooks_leaves_is_relayed_by_the_next_process(
    line, tmp_path, case
):
    """Uvicorn ends by raising SIGTERM again, which no hook outlives; the outbox does."""
    run = Run(case, line, tmp_path)
    _next_process_relays(run, run.serve(VISITS))


def _next_process_relays(run, account):
    assert account.lost == account.left
    subprocess.run(
        [Path(sys.executable).with_name("optly-celery"), "outbox", "drain"],
        env=os.environ | run.env, check=True, timeout=60,
    )  # fmt: skip

    arrived = run.arrived()
    assert len(arrived) == account.events
    assert arrived.total() == account.events


@pytest.mark.slow
@pytest.mark.parametrize("case", _marked(c for c in CASES if c.name in DIRECT))
def test_direct_mode_has_nothing_to_leave_behind(line, tmp_path, case):
    """Published before the visitor was answered."""
    account = Run(case, line, tmp_path, delivery="direct").serve(VISITS)

    assert (account.lost, account.left, account.duplicates) == (0, 0, 0), account
