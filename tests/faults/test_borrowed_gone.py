"""A worker whose Celery or kombu is not as this package knows it."""

from __future__ import annotations

import pytest
from celery import Celery

from optly_celery.names import DELIVER_TASK
from optly_celery.testing.server import Answer
from optly_celery.worker.borrowed import FEATURES

from ..line import IMPATIENT_SETTINGS, Line
from ..support import US_URL, eventually, params_of

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
        _send_as_another_program(line.broker.url)

        eventually(lambda: len(line.taken()) + len(line.dead.ids()) == 22 and line.is_empty())

        assert len(line.dead.ids()) == 1
        assert worker.output().count(FEATURES[feature].without) == 1
        assert "celery.worker.state:gone" in worker.output()
        assert "visitor-" not in worker.output()
        assert ("paused: http_503" in worker.output()) is (feature not in ("pause", "request"))


def _send_as_another_program(broker_url):
    """By the public wire format; Celery writes its arguments down to be shown."""
    app = Celery("other", broker=broker_url, set_as_current=False)
    args = (US_URL, "POST", params_of("visitor-of-another", "another"))
    app.send_task(DELIVER_TASK, args, queue="optimizely")
    app.close()
