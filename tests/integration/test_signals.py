"""Signals as an app hears them: dispatch, an outage, the relay."""

from __future__ import annotations

from collections import Counter

from optly_celery import dispatch, flush, signals, stats

from ..conftest import celery_app
from ..support import US_URL, Broker, eventually, params_of


def test_an_outage_is_heard_as_it_happens(tmp_path):
    """Published; stored while the broker is away; relayed when it is back; refused; as in stats."""
    heard: Counter[str] = Counter()
    outboxes = []
    receivers = []
    for name in ("accepted", "published", "stored", "relayed", "dropped", "refused"):

        def hear(*, name=name, events=1, outbox=None, **_):
            heard[name] += events
            outboxes.append((name, outbox))

        receivers.append((getattr(signals, name), hear))
        getattr(signals, name).connect(hear, weak=False)
    broker = Broker(tmp_path)
    try:
        with celery_app(broker.url, optly_outbox_dir=str(tmp_path / "outbox")):
            before = stats()
            dispatch(US_URL, params_of(uuid="u-0"))
            broker.stop()
            for n in range(3):
                dispatch(US_URL, params_of(uuid=f"u-{n + 1}"))
            dispatch("", params_of())
            assert dict(heard) == {"accepted": 4, "published": 1, "stored": 3, "refused": 1}
            assert [o["rows"] for name, o in outboxes if name == "stored"] == [1, 2, 3]
            broker.start()
            eventually(lambda: flush(1) and heard["relayed"] == 3)
            assert outboxes[-1][0] == "relayed"
            assert outboxes[-1][1]["rows"] == 0
            now = stats()
            for name in ("accepted", "published", "stored", "relayed"):
                assert heard[name] == now[name] - before[name]
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)
        broker.stop()
