"""The POST: one HTTP call over a kept connection."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from ..errors import PermanentDeliveryError, TransientDeliveryError
from ..event.event import Event
from ..host.greenlets import limited
from .request import Requests
from .retry import Verdict, retry_after_s, verdict
from .session import Session

STRICT_HEADER = "X-Optimizely-Strict"

_MOST_REQUESTS = 64  # a url and its headers are the SDK's, so there are one or two
_MOST_BODY_BYTES = 65_536  # an answer is empty or one line; more would be somebody's mistake
_CHUNK_BYTES = 8_192
MOST_ANSWER_BYTES = 2_000
"""How much of a refusal's words is kept."""


class Transport:
    """Sends events, each call within ``deadline_s``, over a session of its own while it lasts.

    ``timeout_s`` are for connecting, and for each wait for something to come; the deadline is for
    the whole of a call, by default both together. Looking up a host's name is apart.

    Idle sessions keep their connection and are used again, last one first: there are as many
    as there were calls at the same time, so one in a process, one per thread or greenlet in a
    pool. Certificates are verified, redirects are not followed, cookies are not kept, proxies
    and certificate bundles come from the environment as requests documents them.
    """

    def __init__(
        self,
        *,
        allowed_hosts: tuple[str, ...],
        timeout_s: tuple[float, float],
        deadline_s: float | None = None,
        url_override: str | None = None,
        strict: bool = False,
        user_agent: str = "optly_celery",
    ) -> None:
        self._timeout_s = timeout_s
        self._deadline_s = sum(timeout_s) if deadline_s is None else deadline_s
        headers = {"User-Agent": user_agent} | ({STRICT_HEADER: "true"} if strict else {})
        self._made = Requests(
            allowed_hosts=frozenset(allowed_hosts), url_override=url_override, headers=headers
        )
        self._idle: deque[Session] = deque()
        self._environment: dict[str, Mapping[str, Any]] = {}
        self._requests: dict[object, requests.PreparedRequest] = {}

    def post(self, event: Event) -> None:
        """Send the event once; returning means that the endpoint answered 2xx.

        Raises:
            TransientDeliveryError: no answer, or one that is worth another attempt.
            PermanentDeliveryError: refused, or not to be sent where it says. ``reason`` is
                ``http_<status>``, ``host_not_allowed``, ``not_https`` or ``invalid_request``.
        """
        request = self._request_of(event)
        try:
            session = self._idle.pop()
        except IndexError:
            session = Session()
        exchange = session.exchange
        try:
            with limited(self._deadline_s):
                exchange.begin(self._deadline_s)
                answer = self._send(session, request)
        except (OSError, HTTPError) as exc:
            # What requests raises, and what it lets through: a certificate bundle that is not
            # there. Not chained: the messages quote the URL, and a GET's holds the event.
            session.close()
            reason = "timeout" if exchange.is_over() else _reason(exc)
            raise TransientDeliveryError(
                f"{event.summary}: {_describe(exc)}", reason=reason
            ) from None
        except BaseException:
            session.close()
            raise
        if exchange.left_over or answer.status < 200:
            session.close()  # or the next event would read what was meant for this one
        else:
            self._idle.append(session)
        _judge(event, answer)

    def close(self) -> None:
        """Close idle connections; a later `post` opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _request_of(self, event: Event) -> requests.PreparedRequest:
        """The request, made once for all POSTs that differ in their bodies only: it costs 90 µs."""
        if event.verb != "POST":
            return self._made.of(event)
        key = event.url, *(event.headers or {}).items()
        known = self._requests.get(key)
        if known is None:
            if len(self._requests) >= _MOST_REQUESTS:
                self._requests.clear()
            known = self._requests[key] = self._made.of(event)
            known.body = None  # that is this event's, and may be megabytes
        request = known.copy()
        request.prepare_body(event.body, None)
        return request

    def _send(self, session: Session, request: requests.PreparedRequest) -> _Answer:
        # The adapter, not the session: what the session adds is redirects, cookies and hooks.
        url = request.url or ""
        response = session.get_adapter(url).send(
            request, timeout=self._timeout_s, **self._environment_of(session, url)
        )
        raw, body, taken = response.raw, b"", 0
        with contextlib.closing(raw):
            # The status has been read, so it stands, whatever becomes of the body. Only a
            # connection whose answer was read to its end is given back for the next call.
            with contextlib.suppress(OSError, HTTPError, ValueError):  # a chunk of size -2
                # As it came: nothing that was asked for is compressed.
                for chunk in raw.stream(_CHUNK_BYTES, decode_content=False):
                    body += chunk[: MOST_ANSWER_BYTES - len(body)]
                    taken += len(chunk)
                    if taken > _MOST_BODY_BYTES:
                        break
                else:
                    raw.release_conn()
            return _Answer(response.status_code, response.headers.get("Retry-After"), body)

    def _environment_of(self, session: requests.Session, url: str) -> Mapping[str, Any]:
        """Proxies and certificates for a URL's host, looked up once: it costs 100 µs."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        known = self._environment.get(origin)
        if known is None:
            if len(self._environment) >= _MOST_REQUESTS:
                self._environment.clear()
            known = session.merge_environment_settings(origin, {}, True, None, None)
            self._environment[origin] = known
        return known


class _Answer(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


def _judge(event: Event, answer: _Answer) -> None:
    """Return if the answer means that the event was taken; raise what it means otherwise."""
    meaning = verdict(answer.status)
    if meaning is Verdict.DELIVERED:
        return
    message, reason = f"{event.summary}: HTTP {answer.status}", f"http_{answer.status}"
    if meaning is Verdict.TRANSIENT:
        raise TransientDeliveryError(
            message,
            reason=reason,
            status=answer.status,
            retry_after_s=retry_after_s(answer.retry_after, datetime.now(timezone.utc)),
        )
    raise PermanentDeliveryError(
        message,
        reason=reason,
        status=answer.status,
        answer=answer.body.decode(errors="replace") or None,
    )


def _reason(exc: Exception) -> str:
    if isinstance(exc, requests.Timeout):
        return "timeout"
    if isinstance(exc, requests.RequestException) and not isinstance(exc, requests.ConnectionError):
        return "broken_answer"
    return "connection_error"


def _describe(exc: BaseException) -> str:
    """Names of the error and of what caused it, without their texts."""
    names = [type(exc).__name__]
    cause = exc.args[0] if exc.args and isinstance(exc.args[0], BaseException) else exc.__cause__
    while isinstance(cause, BaseException) and len(names) < 4:
        names.append(type(cause).__name__)
        inner = getattr(cause, "reason", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return ": ".join(names)
