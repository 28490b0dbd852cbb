"""A worker's threads on one CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.concurrency import prefork, solo, thread

from optly_celery.celery_app import standalone_app
from optly_celery.worker.tuning.one_cpu import OneCpu

from ..line import Line
from ..support import eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux, and two CPUs to choose from",
)


def cpus_of_each_thread(worker):
    threads = Path(f"/proc/{worker.process.pid}/task").iterdir()
    return [frozenset(os.sched_getaffinity(int(path.name))) for path in threads]


def test_a_workers_threads_are_on_one_cpu(tmp_path):
    """All on the same one, those that start later too, and it delivers and ends as usual."""
    uuids = [f"u-{n}" for n in range(100)]
    with Line(tmp_path) as line:
        worker = line.work("-c", "8")
        line.dispatch(uuids)
        line.all_delivered(uuids)

        def together():
            found = cpus_of_each_thread(worker)
            return len(found) > 8 and len(set(found)) == 1 and len(found[0]) == 1

        eventually(together, what=lambda: cpus_of_each_thread(worker))
        assert worker.stop() == 0


def test_the_kernel_may_choose_another_cpu_every_second(monkeypatch, consumer):
    """The main thread is let go for a moment, and the others follow to where it is then."""
    kept, everywhere = {}, os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_setaffinity", lambda tid, cpus: kept.update({tid: cpus}))
    step = OneCpu(consumer)
    step.start(consumer)
    (look,) = consumer.timer.entries

    look.call()
    assert kept == {0: everywhere}

    consumer.timer.entries[-1].call()
    (cpus,) = {frozenset(kept[int(path.name)]) for path in Path("/proc/self/task").iterdir()}
    assert len(cpus) == 1

    step.stop(consumer)
    assert look.cancelled
    assert set(map(frozenset, kept.values())) == {frozenset(everywhere)}


@pytest.mark.parametrize(
    ("queues", "pool", "one_cpu", "gains"),
    [
        (["optimizely"], thread, True, True),
        (["optimizely", "celery"], thread, True, False),  # its tasks may use several CPUs
        (["celery"], thread, True, False),
        (["optimizely"], prefork, True, False),  # one thread in each process
        (["optimizely"], solo, True, False),
        (["optimizely"], thread, False, False),
    ],
)
def test_only_workers_that_gain_by_it_are_kept_on_one_cpu(queues, pool, one_cpu, gains):
    """Threads that only deliver gain; whatever could use several CPUs keeps them."""
    app = standalone_app()
    app.conf.optly_one_cpu = one_cpu
    app.amqp.queues.select(queues)
    consumer = SimpleNamespace(app=app, pool=pool.TaskPool(1))
    assert OneCpu(consumer).include_if(consumer) is gains


class Timer:
    """Calls back when it is told to."""

    def __init__(self):
        self.entries = []
        self.call_repeatedly = self.call_after = self._take

    def _take(self, _seconds, call):
        entry = SimpleNamespace(call=call, cancelled=False)
        entry.cancel = lambda: vars(entry).update(cancelled=True)
        self.entries.append(entry)
        return entry


@pytest.fixture
def consumer():
    return SimpleNamespace(timer=Timer())


def test_a_worker_that_may_use_one_cpu_alone_changes_nothing(monkeypatch, consumer):
    """As when somebody has pinned it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    step = OneCpu(consumer)
    step.start(consumer)
    step.stop(consumer)
    assert consumer.timer.entries == []


def test_a_kernel_that_refuses_ends_nothing(monkeypatch, consumer, caplog):
    """As in a sandbox that does not let a process choose; said once, and not tried again."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    step = OneCpu(consumer)
    step.start(consumer)
    (look,) = consumer.timer.entries

    with caplog.at_level("INFO"):
        look.call()
        consumer.timer.entries[-1].call()

    assert look.cancelled
    assert "stay where they are" in caplog.text
    step.stop(consumer)
