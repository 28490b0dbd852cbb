"""For the tests of apps that use optly_celery: nothing here needs a broker or a network.

``recording()``, or the pytest fixture ``optly_events``, keeps what an app would have sent and
asserts on it. ``delivering()``, or the fixture ``optly_collector``, has it delivered to a strict
stand-in for Optimizely that can be made to fail.
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
