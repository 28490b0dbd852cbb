"""A server that says exactly what it is told to, byte for byte and pause for pause."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

Step = bytes | float | Callable[[socket.socket], object]


def drip(data: bytes, every_s: float = 0.05, size: int = 1) -> Callable[[socket.socket], object]:
    """Send so little at a time that no read ever waits long."""

    def act(client: socket.socket) -> None:
        for start in range(0, len(data), size):
            client.sendall(data[start : start + size])
            threading.Event().wait(every_s)

    return act


def endless(piece: bytes, every_s: float = 0.0) -> Callable[[socket.socket], object]:
    """Send the same again until nobody listens any more."""

    def act(client: socket.socket) -> None:
        while True:
            client.sendall(piece)
            if every_s:
                threading.Event().wait(every_s)

    return act


def shut(client: socket.socket) -> None:
    """Say goodbye."""
    client.shutdown(socket.SHUT_RDWR)


def reset(client: socket.socket) -> None:
    """Hang up in the middle."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()


class RawServer:
    """Reads a request, then takes the next script's steps, on whichever connection it came.

    Use it as a context manager. ``requests`` are heads and bodies; ``done`` counts scripts that
    have come to their end, or were cut short by the other side.
    """

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.done = 0
        self.read = True
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/events"

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
                self._clients.append(client)
            while self._serve_one(client):
                pass

    def _serve_one(self, client: socket.socket) -> bool:
        data = b""
        while self.read and b"\r\n\r\n" not in data:
            more = client.recv(65_536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while self.read and length and len(body) < int(length[1]):
            body += client.recv(65_536)
        self.requests.append((head, body))
        try:
            for step in self.scripts.pop(0) if self.scripts else ():
                if isinstance(step, bytes):
                    client.sendall(step)
                elif isinstance(step, float):
                    threading.Event().wait(step)
                else:
                    step(client)
        finally:
            self.done += 1
        return True
