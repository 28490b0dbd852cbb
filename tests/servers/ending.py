"""The WSGI shop, whose processes say in ``SHOP_ENDS`` that they end, and then wait to be let go.

They do so in an exit hook of the application, which runs before that of the package.
"""

from __future__ import annotations

import atexit
import os
import time
from functools import cache
from pathlib import Path

from . import wsgi

GO = "go"


def application(environ, start_response):
    answer = wsgi.application(environ, start_response)
    if environ["PATH_INFO"] != "/":  # the package registers its own on first use
        _wait_at_exit()
    return answer


@cache
def _wait_at_exit():
    atexit.register(_wait, Path(os.environ["SHOP_ENDS"]))


def _wait(place):
    (place / str(os.getpid())).touch()
    while not (place / GO).exists():
        time.sleep(0.01)
