"""The demo's collector, a process of its own that the tour looks at."""

import pytest
import requests

from optly_celery.demo.errors import DemoError
from optly_celery.demo.processes import CollectorProcess

from ...support import params_of


@pytest.fixture
def collector(tmp_path):
    made = CollectorProcess(tmp_path, port=0, outage_at=2, outage_s=3600)
    yield made
    made.kill()


def test_each_look_brings_what_is_new(collector):
    """And nothing twice; that is what the books are kept from."""
    url = collector.wait_until_ready(lambda: None)
    assert collector.posts() == []

    for uuid in ("u-1", "u-2"):
        requests.post(url, json=params_of(uuid=uuid), timeout=5)

    assert collector.posts() == [(204, ["u-1"]), (503, ["u-2"])]
    assert collector.posts() == []


def test_one_that_has_ended_is_told(collector):
    """In a sentence of the demo's, not as a broken connection."""
    collector.wait_until_ready(lambda: None)
    collector.kill()

    with pytest.raises(DemoError, match=r"^the collector does not answer \(\w+\)$"):
        collector.posts()


def test_one_that_cannot_start_says_why(tmp_path):
    """With its last words."""
    (tmp_path / "optly_celery").mkdir()
    (tmp_path / "optly_celery" / "__init__.py").write_text("raise SystemExit('no room')")
    made = CollectorProcess(tmp_path, port=0, outage_at=2, outage_s=1)

    with pytest.raises(DemoError, match=r"^the collector ended with .* last words: no room$"):
        made.wait_until_ready(lambda: None)
    made.kill()


def test_whoever_waits_for_it_can_stop_waiting(collector):
    """What the check raises goes through."""
    with pytest.raises(KeyboardInterrupt):
        collector.wait_until_ready(_interrupted)


def _interrupted():
    raise KeyboardInterrupt
