"""URLs of Redis, or of any broker: in redis-py's spelling, and for people to see. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_NEXT = re.compile("[;,:@]")  # in a path, where there is another URL behind the first


def for_redis_py(url: str) -> str:
    """A Redis URL as kombu spells it, in redis-py's spelling: unix sockets, and TLS options."""
    parts = urlsplit(url)
    scheme = "unix" if parts.scheme == "redis+socket" else parts.scheme
    query = urlencode([_option(*pair) for pair in parse_qsl(parts.query)])
    # Not urlunsplit: it makes unix:/path of a socket's URL, which redis-py refuses.
    return f"{scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"


def address(url: str) -> str:
    """The URL without user, password and options; of several in one text, the first.

    kombu's own way shows the user, where a password is easily written by mistake.

    Raises:
        ValueError: the port is no number.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{_NEXT.split(parts.path)[0]}"


def _option(name: str, value: str) -> tuple[str, str]:
    if name == "ssl_cert_reqs":
        return name, value.lower().removeprefix("cert_")
    return ("db" if name == "virtual_host" else name), value
