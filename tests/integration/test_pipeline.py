"""An event's whole way: dispatcher, broker, worker process, endpoint."""

import json

import pytest

from optly_celery import EventDispatcher, stats
from optly_celery.testing.server import Answer

from ..support import US_URL, eventually, params_of


def test_a_dispatched_event_is_posted_byte_for_byte(app, broker, collector, make_worker):
    """The body is the JSON that the SDK's own dispatcher would have sent."""
    params = params_of("vïsitor", "u-1", revision="7", big=12345678901234567890123, tiny=1e-300)
    EventDispatcher.dispatch_event(_LogEvent(params))
    make_worker(broker.url, url_override=collector.url)

    eventually(lambda: collector.received)

    posted = collector.received[0]
    assert posted.body == json.dumps(params).encode()
    assert posted.headers["content-type"] == "application/json"
    assert stats() == {
        "accepted": 1,
        "published": 1,
        "stored": 0,
        "relayed": 0,
        "dropped": {},
        "refused": {},
        "outbox": {"rows": 0, "bytes": 0, "oldest_age_s": 0.0},
    }


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_transient_failure_is_retried(app, broker, collector, make_worker, status):
    """The same bytes come again, after a backoff, until the endpoint takes them."""
    collector.script(Answer(status))
    EventDispatcher.dispatch(US_URL, params_of())
    make_worker(broker.url, url_override=collector.url, retry_backoff=0.1)

    eventually(lambda: len(collector.received) == 2)

    first, second = collector.received
    assert first.body == second.body


class _LogEvent:
    http_verb = "POST"
    url = US_URL

    def __init__(self, params):
        self.params = params
        self.headers = {"Content-Type": "application/json"}
