"""In a process that gevent has patched, the relay is a greenlet among the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..faults.test_outbox_faults import uuids_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("delivery", ["outbox", "direct"])
def test_greenlets_dispatch_while_another_one_relays(broker, tmp_path, delivery):
    """50 greenlets dispatch 40 events each; none is lost, and others get their turn."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.greenlets", "50", "40"],
        env=os.environ
        | {"OPTLY_BROKER_URL": broker.url, "OPTLY_DELIVERY": delivery}
        | {"OPTLY_OUTBOX_DIR": str(tmp_path)},
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip

    found = json.loads(done.stdout)
    assert found["flushed"]
    assert found["accepted"] == 2_000
    assert found["dropped"] == found["refused"] == {}
    assert found["stored" if delivery == "outbox" else "published"] == 2_000
    uuids = uuids_in(broker)
    assert (len(uuids), uuids.total()) == (2_000, 2_000)
    assert found["ticks"] > 10, found
