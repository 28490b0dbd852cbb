"""The POST: one HTTP call over a kept connection. The only module that imports requests."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ..errors import PermanentDeliveryError, TransientDeliveryError
from ..event.event import Event
from .retry import Verdict, retry_after_s, verdict

STRICT_HEADER = "X-Optimizely-Strict"

_MOST_REQUESTS = 64  # a url and its headers are the SDK's, so there are one or two
_MAX_ANSWER_BYTES = 65_536  # an answer is empty or one line; more would be somebody's mistake


class Transport:
    """Sends events, each call over a session of its own while it lasts.

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
        url_override: str | None = None,
        strict: bool = False,
        user_agent: str = "optly_celery",
    ) -> None:
        self._allowed_hosts = frozenset(allowed_hosts)
        self._timeout_s = timeout_s
        self._url_override = url_override
        self._headers = {"User-Agent": user_agent}
        if strict:
            self._headers[STRICT_HEADER] = "true"
        self._idle: deque[requests.Session] = deque()
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
            session = _new_session()
        try:
            status, retry_after = self._send(session, request)
        except OSError as exc:
            # What requests raises, and what it lets through: a certificate bundle that is not
            # there. Not chained: the messages quote the URL, and a GET's holds the event.
            session.close()
            raise TransientDeliveryError(
                f"{event.summary}: {_describe(exc)}", reason=_reason(exc)
            ) from None
        except BaseException:
            session.close()
            raise
        self._idle.append(session)
        meaning = verdict(status)
        if meaning is Verdict.DELIVERED:
            return
        message, reason = f"{event.summary}: HTTP {status}", f"http_{status}"
        if meaning is Verdict.TRANSIENT:
            raise TransientDeliveryError(
                message,
                reason=reason,
                status=status,
                retry_after_s=retry_after_s(retry_after, datetime.now(timezone.utc)),
            )
        raise PermanentDeliveryError(message, reason=reason, status=status)

    def close(self) -> None:
        """Close idle connections; a later `post` opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _request_of(self, event: Event) -> requests.PreparedRequest:
        """`_prepare`, done once for all POSTs that differ in their bodies only: it costs 90 µs."""
        if event.verb != "POST":
            return self._prepare(event)
        key = event.url, *(event.headers or {}).items()
        known = self._requests.get(key)
        if known is None:
            if len(self._requests) >= _MOST_REQUESTS:
                self._requests.clear()
            known = self._requests[key] = self._prepare(event)
            known.body = None  # that is this event's, and may be megabytes
        request = known.copy()
        request.prepare_body(event.body, None)
        return request

    def _prepare(self, event: Event) -> requests.PreparedRequest:
        url = self._url_override or event.url
        headers = {**self._headers, **(event.headers or {})}
        if event.verb == "POST" and not any(k.lower() == "content-type" for k in headers):
            headers["content-type"] = "application/json"
        try:
            if event.verb == "GET":
                request = requests.Request("GET", url, params=event.params, headers=headers)
            else:
                request = requests.Request("POST", url, data=event.body, headers=headers)
            prepared = request.prepare()
            for name, value in prepared.headers.items():
                # As http.client will do it, when it is too late for a verdict.
                name.encode("ascii")
                value.encode("latin-1")
            # The prepared URL is the one that requests will connect to, whatever was written.
            target = urlsplit(prepared.url or "")
            host = target.hostname or ""
        except (requests.RequestException, ValueError, TypeError):
            raise PermanentDeliveryError(
                f"{event.summary}: not a request that can be sent", reason="invalid_request"
            ) from None
        if self._url_override is None:
            if target.scheme != "https":
                raise PermanentDeliveryError(f"{event.summary}: not HTTPS", reason="not_https")
            if host not in self._allowed_hosts or "@" in target.netloc:
                raise PermanentDeliveryError(
                    f"{event.summary}: host not in optly_allowed_hosts", reason="host_not_allowed"
                )
        return prepared

    def _send(
        self, session: requests.Session, request: requests.PreparedRequest
    ) -> tuple[int, str | None]:
        # The adapter, not the session: what the session adds is redirects, cookies and hooks.
        url = request.url or ""
        response = session.get_adapter(url).send(
            request, timeout=self._timeout_s, **self._environment_of(session, url)
        )
        with contextlib.closing(response):
            # The status has been read, so it stands, whatever becomes of the body; reading the
            # body gives the connection back for the next call.
            with contextlib.suppress(requests.RequestException):
                taken = 0
                for chunk in response.iter_content(_MAX_ANSWER_BYTES):
                    taken += len(chunk)
                    if taken > _MAX_ANSWER_BYTES:
                        break
            return response.status_code, response.headers.get("Retry-After")

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


class _Session(requests.Session):
    """Follows no redirect, and so does not look at where one points to either."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests' own
        return None


def _new_session() -> requests.Session:
    session = _Session()
    # No retries below: only the retry policy decides on another attempt.
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=1, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return session


def _reason(exc: OSError) -> str:
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
