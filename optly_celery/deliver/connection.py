"""A connection with a limit on the whole of a POST, and an eye on what is left on it.

``requests`` and urllib3 have a limit for each read, so whoever sends a byte now and then holds a
thread for ever. Here each step, from the first address to the last byte, gets at most the time
that is left. And http.client takes an interim answer (102, 103) for the final one, whose real
answer the next event would read then: here they are read past, and what is left over after an
answer is noticed.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

_MOST_INTERIM = 100
_MOST_BYTES = 262_144  # of one answer, head and all: somebody's mistake is not read for ever
_PIECE_BYTES = 16_384  # a TLS record: what is sent in one go, so that each has a limit of its own


class Exchange:
    """One request and its answer: the time that they have, and what came with them.

    A session has one, used again for each of its calls.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_at = 0.0
        self._taken = 0
        self.left_over = False
        """Whether more has come than the answer: what comes next need not be the next answer."""

    def begin(self, deadline_s: float) -> None:
        """Start: from now on there are so many seconds."""
        self._ends_at = self._clock() + deadline_s
        self._taken = 0
        self.left_over = False

    def left_s(self) -> float:
        """How many seconds are left.

        Raises:
            TimeoutError: none.
        """
        left_s = self._ends_at - self._clock()
        if left_s <= 0:
            raise TimeoutError("the deadline of the whole request is over")
        return left_s

    def is_over(self) -> bool:
        return self._clock() >= self._ends_at

    def limit(self, sock: Any) -> None:
        """Have the next step on a socket end in time; steps that are shorter stay so."""
        left_s, step_s = self.left_s(), sock.gettimeout()
        if step_s is None or step_s > left_s:  # asked for first: setting it is a system call
            sock.settimeout(left_s)

    def take(self, size: int) -> None:
        """Count what was received.

        Raises:
            http.client.HTTPException: it is more than any answer needs.
        """
        self._taken += size
        if self._taken > _MOST_BYTES:
            raise http.client.HTTPException(f"an answer of more than {_MOST_BYTES} bytes")


class Timed:
    """Before a connection class of urllib3: whatever it does is part of an exchange."""

    sock: Any
    timeout: Any
    response_class: Any

    def __init__(self, exchange: Exchange, *args: Any, **kwargs: Any) -> None:
        self._exchange = exchange
        super().__init__(*args, **kwargs)
        self.response_class = partial(_Response, exchange)

    def connect(self) -> None:
        left_s = self._exchange.left_s()
        self.timeout = left_s if self.timeout is None else min(self.timeout, left_s)
        super().connect()  # type: ignore[misc]  # a mixin

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        self._exchange.limit(self.sock)  # for the handshake that follows

    def send(self, data: Any) -> None:
        """As http.client's, but a peer that takes a byte now and then does not have for ever."""
        if self.sock is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]  # which connects
            return
        for start in range(0, len(data), _PIECE_BYTES):
            self._exchange.limit(self.sock)
            super().send(data[start : start + _PIECE_BYTES])  # type: ignore[misc]


class _Direct(Timed):
    """Each of a host's addresses gets the time that is left, not all of it again."""

    def _new_conn(self) -> socket.socket:
        connection: Any = self
        # With its last dot, which `host` is without. How long a resolver takes is not ours.
        place = getattr(self, "_dns_host", connection.host).strip("[]")
        try:
            found = socket.getaddrinfo(place, connection.port, 0, socket.SOCK_STREAM)
            while True:
                family, kind, protocol, _, address = found.pop(0)
                try:
                    return self._open(address, connection.socket_options, family, kind, protocol)
                except OSError:
                    if not found:
                        raise
        except (OSError, UnicodeError) as exc:  # IDNA refuses a name by UnicodeError
            is_late = isinstance(exc, TimeoutError)
            error = ConnectTimeoutError if is_late else NewConnectionError
            raise error(connection, f"no connection: {type(exc).__name__}") from exc

    def _open(self, address: Any, options: Any, *kind: int) -> socket.socket:
        sock = socket.socket(*kind)
        try:
            for option in options or ():
                sock.setsockopt(*option)
            sock.settimeout(self.timeout)
            self._exchange.limit(sock)
            sock.connect(address)
            self._exchange.limit(sock)
        except BaseException:
            sock.close()
            raise
        return sock


class _Http(_Direct, HTTPConnection):
    pass


class _Https(_Direct, HTTPSConnection):
    pass


_OURS: dict[Any, type[Timed]] = {HTTPConnection: _Http, HTTPSConnection: _Https}


def timed(pool: type[HTTPConnectionPool], exchange: Exchange) -> type[HTTPConnectionPool]:
    """A class of connection pools like this one, whose connections are part of an exchange.

    One at a time: what is in use when another call begins would get that one's time.
    """
    theirs = getattr(pool, "ConnectionCls", None)
    if theirs is None:
        return pool  # another urllib3: see `worker.borrowed`
    # One that goes by SOCKS connects in its own way, and that has limits for each step alone.
    ours = _OURS.get(theirs) or type(theirs.__name__, (Timed, theirs), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": staticmethod(partial(ours, exchange))})


class _Response(http.client.HTTPResponse):
    """The final answer, with all that came before it read past."""

    fp: Any

    def __init__(self, exchange: Exchange, sock: Any, *args: Any, **kwargs: Any) -> None:
        incoming: Any = _Incoming(sock, exchange)
        self._incoming = incoming
        super().__init__(incoming, *args, **kwargs)

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"{_MOST_INTERIM} answers, and none of them final")

    def _close_conn(self) -> None:
        """At the end of the answer: notice what was received and is none of it."""
        self._incoming.over = True
        if self.fp.peek(1):
            self._incoming.exchange.left_over = True
        super()._close_conn()  # type: ignore[misc]


class _Incoming:
    """A socket as far as http.client's answer needs one, and what is read of it, in time.

    No `io.RawIOBase`: what that does at its end costs more than all of this.
    """

    __slots__ = ("_file", "_sock", "closed", "exchange", "over")

    def __init__(self, sock: Any, exchange: Exchange) -> None:
        self._sock, self.exchange = sock, exchange
        # A file of its own keeps the socket open for an answer that its connection ends with.
        self._file = sock.makefile("rb", buffering=0)
        self.over = self.closed = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        raw: Any = self
        return io.BufferedReader(raw)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return 0

    def readinto(self, buffer: Any) -> int | None:
        if self.over:
            return None  # nothing there at the moment
        self.exchange.limit(self._sock)
        size: int = self._file.readinto(buffer)
        self.exchange.take(size)
        return size

    def readall(self) -> bytes:
        found, piece = b"", bytearray(_PIECE_BYTES)
        while size := self.readinto(piece):
            found += piece[:size]
        return found

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            # What TLS has decrypted is seen by nobody who asks the system whether data waits.
            pending = getattr(self._sock, "pending", None)
            if pending is not None and pending():
                self.exchange.left_over = True
            self._file.close()
