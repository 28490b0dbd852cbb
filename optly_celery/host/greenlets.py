"""A limit on the whole of what a greenlet does."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def limited(seconds: float) -> AbstractContextManager[Any]:
    """Where sockets are gevent's, raise `TimeoutError` in the block when it has taken so long.

    Its TLS sockets wait anew for every few bytes of one record, however long that takes in all.
    A thread's do not, and are limited by who uses them.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return nullcontext()
    gevent: Any = sys.modules["gevent"]
    timeout: AbstractContextManager[Any] = gevent.Timeout(seconds, TimeoutError)
    return timeout
