"""The outbox file: what is in it survives everything that is not done to it on purpose."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from optly_celery.enqueue.claims import Claim, files_in, new_path, set_aside
from optly_celery.enqueue.outbox import Outbox
from optly_celery.errors import OutboxError
from optly_celery.event.event import Event

from ...support import US_URL, params_of


def event_of(number: int, at: float = 1e9, **context: object):
    event = Event.of(US_URL, params_of(f"v-{number}", f"u-{number}", **context))
    event.enqueued_at = at
    return event


@pytest.fixture
def outbox(tmp_path):
    made = Outbox(new_path(tmp_path), max_bytes=10_000_000)
    yield made
    made.close()


def everything(outbox: Outbox):
    return outbox.read(limit=100_000, max_bytes=1 << 40)


def test_rows_come_back_whole_and_in_order(outbox):
    """What is read is what was appended, context and text alike."""
    events = [event_of(n, revision=str(n % 2)) for n in range(10)]
    for event in events:
        outbox.append(event)

    assert [row.event for row in everything(outbox)] == events
    assert outbox.rows == 10
    assert outbox.bytes == sum(row.size for row in everything(outbox))


def test_settled_rows_are_gone_and_later_ones_are_not(outbox):
    """Emptying the table does not make a new row look like an old one."""
    outbox.append(event_of(1))
    outbox.settle(everything(outbox))
    assert (outbox.rows, outbox.bytes, outbox.oldest_at) == (0, 0, None)

    outbox.append(event_of(2))

    assert [row.event for row in everything(outbox)] == [event_of(2)]
    assert everything(outbox)[0].id == 2
    assert outbox.oldest_at is not None


def test_reading_is_bounded_by_rows_and_by_bytes(outbox):
    """One read holds so much in memory and no more, but always at least one row."""
    for number in range(10):
        outbox.append(event_of(number))
    size = len(event_of(0).visitors_text)

    assert len(outbox.read(limit=3, max_bytes=1 << 40)) == 3
    assert len(outbox.read(limit=100, max_bytes=size * 4)) == 4
    assert len(outbox.read(limit=100, max_bytes=1)) == 1


def test_a_full_outbox_refuses_and_keeps_what_it_has(tmp_path):
    """Past the bound an event is refused with its reason; room comes back with settling."""
    outbox = Outbox(new_path(tmp_path), max_bytes=1000)
    while outbox.bytes + len(event_of(9).visitors_text) + 50 < 1000:
        outbox.append(event_of(outbox.rows))
    with pytest.raises(OutboxError) as refused:
        outbox.append(event_of(9))
    assert refused.value.reason == "outbox_full"
    assert 0 < outbox.rows < 10

    outbox.settle(everything(outbox))
    outbox.append(event_of(11))

    assert outbox.rows == 1
    outbox.close()


def test_the_bound_itself_is_within_the_bound(tmp_path):
    """What fits exactly is stored."""
    event = event_of(1)
    outbox = Outbox(new_path(tmp_path), max_bytes=2 * (len(event.visitors_text) + 40))
    outbox.append(event)
    outbox.append(event)

    with pytest.raises(OutboxError):
        outbox.append(event)
    outbox.close()


def test_the_oldest_of_what_is_left_is_known(outbox):
    """By it a batch is waited for, and an outbox that does not empty is noticed."""
    for number in range(3):
        outbox.append(event_of(number, 1e9 + number))

    outbox.settle(everything(outbox)[:1])

    assert outbox.oldest_at == 1e9 + 1


def test_files_are_for_their_owner_alone(outbox, tmp_path):
    """0600: the file holds visitor ids."""
    outbox.append(event_of(1))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {"0o600"}, modes


def test_a_killed_process_leaves_what_it_appended(tmp_path):
    """SIGKILL at the instruction after the append loses nothing."""
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from tests.unit.enqueue.test_outbox import *
        outbox = Outbox(new_path(Path({str(tmp_path)!r})), max_bytes=10_000_000)
        for number in range(2000):
            outbox.append(event_of(number))
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9

    (path,) = files_in(tmp_path)
    left = Outbox(path, max_bytes=0, create=False)

    assert [row.event for row in everything(left)] == [event_of(n) for n in range(2000)]
    left.close()


def test_closing_removes_an_empty_file_and_keeps_another(tmp_path):
    """No litter, and no loss."""
    empty, full = (Outbox(new_path(tmp_path), max_bytes=1_000_000) for _ in range(2))
    full.append(event_of(1))
    empty.close()
    full.close()

    assert files_in(tmp_path) == [full.path]
    with pytest.raises(OutboxError) as closed:
        full.append(event_of(2))
    assert closed.value.reason == "outbox_closed"


def test_contexts_do_not_pile_up(outbox):
    """Ten thousand contexts, one after the other, leave few behind."""
    for number in range(1000):
        outbox.append(event_of(number, revision=str(number)))
        outbox.settle(everything(outbox))

    kept = outbox._db.execute("SELECT count(*) FROM contexts").fetchone()[0]

    assert kept <= 101


def test_a_context_that_was_forgotten_is_stored_again(outbox):
    """Or the file of a killed process would hold events that nobody can put together."""
    for number in range(150):
        outbox.append(event_of(number, revision=str(number)))
        outbox.settle(everything(outbox))
    events = [event_of(number, revision=str(number)) for number in range(150)]
    for event in events:
        outbox.append(event)
    outbox.close()

    again = Outbox(outbox.path, max_bytes=0, create=False)

    assert [row.event for row in everything(again)] == events
    again.close()


def test_a_damaged_file_is_told_from_a_good_one_and_set_aside(tmp_path):
    """Torn bytes are an error with a reason; the file keeps its content under another name."""
    path = new_path(tmp_path)
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))

    with pytest.raises(OutboxError) as damaged:
        Outbox(path, max_bytes=0, create=False)
    assert damaged.value.reason == "outbox_damaged"
    kept = set_aside(path)

    assert files_in(tmp_path) == []
    assert kept.read_bytes().startswith(b"SQLite format 3\0")


def test_a_foreign_database_is_left_alone(tmp_path):
    """Somebody else's SQLite file is neither used nor changed."""
    path = tmp_path / "theirs.outbox"
    with sqlite3.connect(path) as theirs:
        theirs.executescript("PRAGMA application_id = 7; CREATE TABLE t (x)")
    theirs.close()
    before = path.read_bytes()

    with pytest.raises(OutboxError) as foreign:
        Outbox(path, max_bytes=0, create=False)

    assert foreign.value.reason == "outbox_foreign"
    assert path.read_bytes() == before


def test_a_full_disk_refuses_the_event_and_keeps_the_others(tmp_path):
    """A file size limit stands for the full disk: the error has a reason, the file stays good."""
    script = textwrap.dedent(f"""
        import resource, signal
        from pathlib import Path
        from tests.unit.enqueue.test_outbox import *
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        outbox = Outbox(Path({str(tmp_path / "a.outbox")!r}), max_bytes=1 << 40)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        kept = 0
        try:
            while True:
                outbox.append(event_of(kept))
                kept += 1
        except OutboxError as exc:
            print(kept, exc.reason, len(everything(outbox)), outbox.rows)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    kept, reason, read, counted = done.stdout.split()

    assert reason in ("outbox_disk_full", "outbox_io")
    assert int(kept) > 10
    assert kept == read == counted
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_only_a_dead_owners_file_can_be_claimed(tmp_path):
    """The kernel holds the owner's lock until it dies, and not a moment longer."""
    path = new_path(tmp_path)
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from tests.unit.enqueue.test_outbox import *
        path = Path({str(path)!r})
        claim, outbox = Claim.take(path), Outbox(path, max_bytes=1_000_000)
        outbox.append(event_of(1))
        print("ready", flush=True)
        sys.stdin.read()
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout.readline() == b"ready\n"
        assert Claim.take(path) is None
        owner.kill()

    claim = Claim.take(path)

    assert claim is not None
    claim.release()


@pytest.mark.parametrize("claimed_again", [True, False])
def test_a_lock_file_that_was_removed_meanwhile_is_no_claim(tmp_path, monkeypatch, claimed_again):
    """Its holder let go between our look and our lock: a lock on what is gone binds nobody."""
    path, last, others = new_path(tmp_path), [], []
    last.append(Claim.take(path))
    lock = fcntl.lockf

    def lock_late(*args):
        monkeypatch.setattr(fcntl, "lockf", lock)
        last.pop().release()
        if claimed_again:
            others.append(Claim.take(path))
        lock(*args)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    descriptors = _descriptors()

    assert Claim.take(path) is None
    assert others.count(None) == 0
    # One was released, and where there is another owner, it has one.
    assert _descriptors() == descriptors - 1 + len(others)


def test_asking_for_a_file_that_is_held_costs_no_descriptor(tmp_path):
    """Relays ask for the files of all living processes every few seconds, for months."""
    path = new_path(tmp_path)
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from tests.unit.enqueue.test_outbox import *
        claim = Claim.take(Path({str(path)!r}))
        print("ready", flush=True)
        sys.stdin.read()
    """)
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout.readline() == b"ready\n"
        before = _descriptors()

        assert [Claim.take(path) for _ in range(20)] == [None] * 20

        assert _descriptors() == before
        owner.kill()


def test_a_claim_leaves_nothing_behind_unless_there_is_a_file(tmp_path):
    """A lock file goes with the outbox that it stands for, and stays as long as that does."""
    path = new_path(tmp_path)
    claim = Claim.take(path)
    path.touch()
    claim.release()
    assert len(list(tmp_path.iterdir())) == 2

    claim = Claim.take(path)
    path.unlink()
    claim.release()

    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_hold_its_parents_claim(tmp_path):
    """The owner's death counts, though a child of it lives on."""
    path = new_path(tmp_path)
    script = textwrap.dedent(f"""
        import os, sys, time
        from pathlib import Path
        from tests.unit.enqueue.test_outbox import *
        path = Path({str(path)!r})
        claim, outbox = Claim.take(path), Outbox(path, max_bytes=1_000_000)
        outbox.append(event_of(1))
        if os.fork():
            os._exit(0)
        print("parent gone", flush=True)
        sys.stdin.read()
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"parent gone\n"
        child.wait(10)
        claim = Claim.take(path)
        assert claim is not None
        claim.release()
        child.stdin.close()


def _descriptors() -> int:
    """How many this process has open, and means to."""
    gc.collect()
    return len([*Path("/dev/fd").iterdir()])
