"""A way to a server that can be cut, blocked without a word, and led to another server."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Proxy:
    """Forwards connections on a port of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._forgotten: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join(10)
        for sock in (*self._pairs, *self._forgotten, self._listener):
            sock.close()

    def go_silent(self) -> None:
        """Leave every connection open at its near end, and forward nothing over it any more."""
        with self._lock:
            self._forgotten += self._pairs
            self._pairs.clear()

    def lead_to(self, target: int) -> None:
        """Cut every connection; new ones go to another server."""
        with self._lock:
            self.target = target
            for sock in self._pairs:
                sock.close()
            self._pairs.clear()

    def _serve(self) -> None:
        while self._open:
            with self._lock, selectors.DefaultSelector() as ready:
                for sock in (self._listener, *self._pairs):
                    ready.register(sock, selectors.EVENT_READ)
                for key, _ in ready.select(0.02):
                    self._forward(key.fileobj)

    def _forward(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if sock is self._listener:
                near, _ = sock.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), 5)
                except OSError:
                    near.close()
                    raise
                self._pairs |= {near: far, far: near}
                return
            if sock not in self._pairs:
                return
            with contextlib.suppress(OSError):
                data = sock.recv(1 << 20)
                if data:
                    self._pairs[sock].sendall(data)
                    return
            other = self._pairs.pop(sock)
            self._pairs.pop(other, None)
            sock.close()
            other.close()
