"""What may be shown of an event: one line, free of personal data."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

VERBS = ("GET", "POST")

_HOST = re.compile(r"[a-z0-9.:_-]{1,253}")  # nothing else is let into a log line
_SUMMARY = re.compile(
    rf"(GET|POST|\?) {_HOST.pattern}, project [A-Za-z0-9]{{1,32}}, [0-9]{{1,9}} events?, "
    r"[0-9]{1,6}(\.[0-9])? (B|kB|MB)"
)


def summarise(verb: object, url: object, project: str, count: int, size: int) -> str:
    """For example ``POST logx.optimizely.com, project 111001, 2 events, 734 B``.

    ``size`` is in bytes.
    """
    if size < 1000:
        amount = f"{size} B"
    else:
        amount = f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
    noun = "event" if count == 1 else "events"
    known = verb if verb in VERBS else "?"
    return f"{known} {_host(url)}, project {project}, {count} {noun}, {amount}"


def is_summary(text: object) -> bool:
    """Whether this is what `summarise` makes, and so may be shown, wherever it comes from."""
    return isinstance(text, str) and _SUMMARY.fullmatch(text) is not None


def _host(url: object) -> str:
    try:
        host = (urlsplit(url).hostname if isinstance(url, str) else None) or ""
    except ValueError:
        return "unknown"
    return host if _HOST.fullmatch(host) else "unknown"
