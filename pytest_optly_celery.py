"""Pytest fixtures for apps that use optly_celery.

Outside of the package, and importing it only when a fixture is used: pytest loads plug-ins in
every run, and a run that does not need this one should not wait for Celery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from optly_celery.testing import Collector, RecordingDispatcher


@pytest.fixture
def optly_events() -> Iterator[RecordingDispatcher]:
    """What the test sends to Optimizely, recorded instead of sent; no broker, no network."""
    from optly_celery.testing import recording  # noqa: PLC0415 - see above

    with recording() as recorder:
        yield recorder


@pytest.fixture
def optly_collector() -> Iterator[Collector]:
    """A strict collector, to which the test's events are delivered; no broker, no network."""
    from optly_celery.testing import Collector, delivering  # noqa: PLC0415 - see above

    with Collector() as collector, delivering(collector):
        yield collector
