"""redis-py: the dead letters' client, and the one below kombu's channel."""

from __future__ import annotations

import pytest

from .borrowed import rows, takes

SEEN = "redis-py 5.2.1, 5.3.1, 8.1.0"

ROWS = [
    *rows(
        "redis:Redis", where="worker/receive/receipt.py", seen=SEEN,
        gone="have `choose` return at once: the stock transport receives",
        names={
            "connection": "a client with a connection of its own, which waits for messages",
            "parse_response": ("an answer, later", takes("redis:Redis.parse_response",
                                                         "connection", "command_name")),
        },
    ),
    *rows(
        "redis.connection:Connection", where="worker/receive/receipt.py", seen=SEEN,
        gone="have `choose` return at once: the stock transport receives",
        names={"send_command": "a command without waiting for its answer",
               "disconnect": "a connection that is silent"},
    ),
    *rows(
        "redis.exceptions", where="worker/receive/receipt.py", seen=SEEN,
        gone="look for OOM at the beginning of the error's text",
        names={"OutOfMemoryError": "a Redis that is full; asked for by its name"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()
