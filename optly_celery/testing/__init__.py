"""For the tests of apps that use optly_celery: nothing here needs a broker or a network.

``recording()``, or the pytest fixture ``optly_events``, keeps what an app would have sent and
asserts on it. ``delivering()``, or the fixture ``optly_collector``, has it delivered to a strict
collector, which takes events in Optimizely's place and can be made to fail. A collector that runs
on its own is `optly_celery.testing.stand_in`.
"""

from .collector import Collector, delivering
from .recorder import RecordingDispatcher, recording
from .records import Conversion, Decision, read
from .server import CLOSE, HANG, Answer

__all__ = [
    "CLOSE",
    "HANG",
    "Answer",
    "Collector",
    "Conversion",
    "Decision",
    "RecordingDispatcher",
    "delivering",
    "read",
    "recording",
]
