"""What is sent where: the request that an event becomes, or why it becomes none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests
from urllib3.util import SKIP_HEADER

from ..errors import PermanentDeliveryError
from ..event.event import Event

# Those that belong to one connection (RFC 9110, 7.6.1; RFC 9113, 8.2.2; RFC 9112, C.2.1), that say
# where a request goes and where it ends, or that have the peer answer before it has ended.
_OURS_TO_SAY = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Makes requests of events, as its fields say; ``headers`` are those of all requests."""

    allowed_hosts: frozenset[str]
    url_override: str | None = field(repr=False)
    headers: Mapping[str, str]

    def of(self, event: Event) -> requests.PreparedRequest:
        """The request that an event becomes.

        Raises:
            PermanentDeliveryError: none, or none that may be sent.
        """
        url = self.url_override or event.url
        headers = {**self.headers, **dict(end_to_end(event.headers or {}))}
        if event.verb == "POST" and not any(k.lower() == "content-type" for k in headers):
            headers["content-type"] = "application/json"
        try:
            if event.verb == "GET":
                request = requests.Request("GET", url, params=event.params, headers=headers)
            else:
                request = requests.Request("POST", url, data=event.body, headers=headers)
            prepared = request.prepare()
            _check(prepared.headers)
            # The prepared URL is the one that requests will connect to, whatever was written.
            target = urlsplit(prepared.url or "")
            host = target.hostname or ""
        except (requests.RequestException, ValueError, TypeError):
            raise PermanentDeliveryError(
                f"{event.summary}: not a request that can be sent", reason="invalid_request"
            ) from None
        if self.url_override is None:
            if target.scheme != "https":
                raise PermanentDeliveryError(f"{event.summary}: not HTTPS", reason="not_https")
            if host not in self.allowed_hosts or "@" in target.netloc:
                raise PermanentDeliveryError(
                    f"{event.summary}: host not in optly_allowed_hosts", reason="host_not_allowed"
                )
        return prepared


def end_to_end(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Those of an event's headers that are meant for the endpoint, as they are.

    The others are about a connection, which is this package's own, or about where the request
    goes and ends: by them a message could pass one request off as two.
    """
    named = {
        token.strip().lower()
        for name, value in headers.items()
        if _bare(name) == "connection"
        for token in value.split(",")
    }
    for name, value in headers.items():
        if _bare(name) not in _OURS_TO_SAY | named:
            yield name, value


def _check(headers: Mapping[str, str]) -> None:
    """Refuse what http.client and urllib3 will refuse, when it is too late for a verdict."""
    for name, value in headers.items():
        name.encode("ascii")
        value.encode("latin-1")
        if value == SKIP_HEADER:
            raise ValueError(name)


def _bare(name: str) -> str:
    return name.strip().lower()
