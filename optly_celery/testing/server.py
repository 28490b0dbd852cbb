"""What every collector is: a server on loopback that records what it gets and can misbehave.

HTTP/1.1 with kept connections, on an asyncio loop in a thread of its own, so that thousands of
slow answers cost no threads and benchmarks measure the worker, not this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.client import responses
from typing import Any

from ..errors import OptlyCeleryError

_START_LIMIT_S = 10.0


class CannotListenError(OptlyCeleryError):
    """The port is taken, or not ours to take."""


@dataclass(frozen=True)
class Answer:
    """What to do with one request.

    ``status`` None closes the connection without an answer. ``delay_s`` passes between taking
    the request and answering it.
    """

    status: int | None = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    body: bytes = field(default=b"", repr=False)


CLOSE = Answer(None)
"""Close the connection without an answer."""

HANG = Answer(None, delay_s=3600.0)
"""Take the request and never answer."""


@dataclass(frozen=True)
class Received:
    """One request: what came, when (``time.monotonic``), and what it was answered."""

    at: float
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    answer: Answer

    @property
    def params(self) -> Any:
        """The body as JSON; None where it is none."""
        return json_of(self.body)


def json_of(body: bytes) -> Any:
    """What a body says; None where it is not JSON, as anybody may post to an open port."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


Choice = Callable[[str, str, bytes], "Answer | None"]
"""Chooses an answer by method, target and body; None means the usual one."""


class Server:
    """Takes events in Optimizely's place. Use it as a context manager.

    For each request: the next scripted answer, else ``down``, else what ``choose`` says, else
    400 where ``accepts`` says no to its body, else 204.
    ``received`` grows by one entry a request, before its answer is sent; ``connections`` by one
    whenever a client connects.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency_s: float = 0.0,
        choose: Choice | None = None,
        accepts: Callable[[bytes], bool] | None = None,
        keep: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.received: list[Received] = []
        self.count = 0
        self.connections = 0
        self.down: Answer | None = None
        self.latency_s = latency_s
        self.choose = choose
        self.accepts = accepts
        self._keep = keep
        self._tls = tls
        self._host, self._port = host, port
        self._script: deque[Answer] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._listening: Future[int] = Future()

    @property
    def url(self) -> str:
        """Where to POST."""
        return f"http{'s' if self._tls else ''}://{self._host}:{self._port}/v1/events"

    def script(self, *answers: Answer | int, anew: bool = False) -> None:
        """Answer the next requests like this, in this order; a number is a status.

        After those that were scripted before, or ``anew``, in their place.
        """
        if anew:
            self._script.clear()
        self._script.extend(Answer(a) if isinstance(a, int) else a for a in answers)

    def start(self) -> None:
        """Listen.

        Raises:
            CannotListenError: the port is taken, or not ours to take.
        """
        self._thread.start()
        try:
            self._port = self._listening.result(_START_LIMIT_S)
        except OSError as exc:
            why = os.strerror(exc.errno) if exc.errno else exc.strerror
            raise CannotListenError(
                f"cannot listen on {self._host}:{self._port} ({why}): "
                "choose another port, or 0 for a free one"
            ) from exc

    def stop(self) -> None:
        """Close every connection and stop listening; what was received stays."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_START_LIMIT_S)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(
                asyncio.start_server(
                    self._serve, self._host, self._port, backlog=1024, ssl=self._tls
                )
            )
        except OSError as exc:
            self._loop.close()
            self._listening.set_exception(exc)
            return
        self._listening.set_result(server.sockets[0].getsockname()[1])
        try:
            self._loop.run_forever()
        finally:
            server.close()
            # Again, as a client may have connected while the others were closed.
            while tasks := asyncio.all_tasks(self._loop):
                for task in tasks:
                    task.cancel()
                self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the other side went away, which is its right
        except asyncio.CancelledError:
            pass  # by stop(); asyncio before 3.12 would log it as an error
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = {k.lower(): v for k, v in BytesParser().parsebytes(rest).items()}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        answer = self.answer(method, target, body)
        self.count += 1
        if self._keep:
            self.received.append(Received(time.monotonic(), method, target, headers, body, answer))
        if (wait_s := answer.delay_s + self.latency_s) > 0:
            await asyncio.sleep(wait_s)
        if answer.status is None:
            return False
        fields = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def answer(self, method: str, target: str, body: bytes) -> Answer:
        """Decide on one request; called once for each, in the order in which they came."""
        if self._script:
            return self._script.popleft()
        if self.down is not None:
            return self.down
        chosen = self.choose(method, target, body) if self.choose else None
        if chosen is not None:
            return chosen
        return Answer(204 if self.accepts is None or self.accepts(body) else 400)
