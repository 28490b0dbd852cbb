"""A worker whose Celery or kombu is not as this package knows it."""

from __future__ import annotations

import pytest

from optly_celery.testing.server import Answer
from optly_celery.worker.borrowed import FEATURES

from ..line import IMPATIENT_SETTINGS, Line
from ..support import eventually

GONE = """
from dataclasses import replace
from optly_celery.worker.borrowed import FEATURES as _features
_name = {name!r}
_features[_name] = replace(_features[_name], names=("celery.worker.state:gone",))
"""


@pytest.mark.parametrize("feature", FEATURES)
def test_a_worker_goes_on_without_what_it_cannot_borrow(tmp_path, feature):
    """It says once which promise is weaker, delivers, retries and keeps, as Celery does it."""
    config = GONE.format(name=feature)
    with Line(tmp_path, config=config, **IMPATIENT_SETTINGS, pause_after=1) as line:
        worker = line.work("-c", "2")
        line.collector.script(Answer(503), Answer(400))
        line.dispatch(["retried"])
        eventually(lambda: line.posts("retried"))
        line.dispatch([f"u-{n}" for n in range(20)])

        eventually(lambda: len(line.taken()) + len(line.dead.ids()) == 21 and line.is_empty())

        assert len(line.dead.ids()) == 1
        assert worker.output().count(FEATURES[feature].without) == 1
        assert "celery.worker.state:gone" in worker.output()
        assert ("paused: http_503" in worker.output()) is (feature not in ("pause", "request"))
