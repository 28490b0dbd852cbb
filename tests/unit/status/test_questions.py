"""What can be told of a broker without asking it."""

from __future__ import annotations

import pytest
from celery import Celery

from optly_celery.status.questions import broker_address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, "amqp://localhost"),
        ("redis://user:secret@h:1/0", "redis://h:1/0"),
        (["redis://:secret@h/0", "redis://:secret@i/0"], "redis://h/0"),
        ("sentinel://:secret@a:26379;sentinel://:secret@b:26379", "sentinel://a:26379"),
        ("redis://:secret/more@h/0", "with a URL that cannot be read"),
        ("redis://h:secret/0", "with a URL that cannot be read"),
    ],
)
def test_a_brokers_address_is_shown_without_a_secret(url, shown):
    """In whichever form Celery takes it, and where it makes no sense."""
    assert broker_address(Celery("shop", broker=url, set_as_current=False)) == shown
