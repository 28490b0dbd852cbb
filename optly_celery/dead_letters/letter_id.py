"""A letter's id as text for a command line, a URL, a form and a log, whatever bytes it is. Pure.

This package makes ids of 16 hexadecimal digits. Somebody else may have written any bytes: those
are shown with a ``_`` before them and for each byte that could be more than a letter, such as
``_a_2Fb`` for ``a/b``, and ``_`` alone for no bytes at all.
"""

from __future__ import annotations

import hashlib
import re

_LONGEST = 64  # what a row of a table, and every server's limit on URLs, has room for
_PLAIN = re.compile(rb"[0-9a-f]{1,%d}" % _LONGEST)
_OTHER = re.compile(rb"[^0-9A-Za-z.-]")
_ESCAPED = re.compile(rb"_([0-9A-F]{2})")
_LONG = re.compile("long-[0-9a-f]{16}")


def shown(raw: bytes) -> str:
    """The text for an id: another one for each id; of one that is too long, its digest."""
    if _PLAIN.fullmatch(raw):
        return raw.decode()
    text = "_" + _OTHER.sub(lambda found: b"_%02X" % ord(found[0]), raw).decode()
    return text if len(text) <= _LONGEST else f"long-{hashlib.sha256(raw).hexdigest()[:16]}"


def is_long(text: str) -> bool:
    """Whether this stands for an id that has to be looked for."""
    return text.startswith("long-") and _LONG.fullmatch(text) is not None


def meant(text: str) -> bytes:
    """The id that `shown` gave this text for, or that somebody has typed as it is."""
    typed = text.encode(errors="surrogatepass")
    if typed[:1] != b"_":
        return typed
    raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), typed[1:])
    return raw if shown(raw) == text else typed
