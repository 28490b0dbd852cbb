"""Dead letters as somebody else may have written them, for the tests of whoever shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .letters import event_of
from .support import Broker

BASE = "optly_celery:dead-letters:"
NOW = 1_700_000_000.0
BIDI = "\u202emoc.live\u202c"
OBEYED = "\x1b[2J\x07\r\n\x7f\x9b1m\u0085\u2028\u2029" + BIDI + "\u2066x\u2069\ud800x\udfff"
"""What a terminal, a log or a page would obey, or could not take at all."""
LANGUAGE = "Zoë 日本語 🛒 עברית \u200d \\x1b"
"""What stays as it is."""

_DEEP = b"[" * 5000 + b"]" * 5000
FACTS: dict[str, Any] = {
    "task_id": "task-x", "reason": "http_400", "error": "http_400", "status": 400, "attempts": 3,
    "first_at": NOW, "last_at": NOW, "summary": "POST logx.optimizely.com",
}  # fmt: skip


@dataclass(frozen=True)
class Odd:
    """One letter, by the bytes of its parts; of those that are None there is none.

    Whether its event is one is not known (None) where Python's version decides that.
    """

    name: str
    id: bytes
    facts: bytes | None
    event: bytes | None
    time: float | None = NOW
    reason: str = "unreadable"
    is_event: bool | None = True


def _event(**parts: Any) -> bytes:
    event = event_of(99)
    known = {"url": event.url, "verb": event.verb, "headers": event.headers, "params": event.params}
    return json.dumps(known | parts).encode()


def _event_with(raw: bytes) -> bytes:
    return _event(params={"a": "here"}).replace(b'"here"', raw)


def _facts(**facts: Any) -> bytes:
    return json.dumps(FACTS | facts).encode()


def _facts_as(**texts: str) -> bytes:
    text = _facts(**dict.fromkeys(texts, "here"))
    for name, raw in texts.items():
        text = text.replace(f'"{name}": "here"'.encode(), f'"{name}": {raw}'.encode())
    return text


_IDS = {
    "slash": b"a/b", "slashes": b"//", "dots": b"..", "dot": b".", "space": b"two words",
    "blank": b" ", "empty": b"", "long": b"x" * 5000, "long odd": b"\xff/" * 2500,
    "not utf-8": b"\xff\xfe\x80", "nul": b"a\0b", "line break": b"a\nb WARNING all is well",
    "carriage return": b"a\rb", "escape": b"\x1b[2J\x1b]0;x\x07", "del": b"\x7f",
    "c1": "\x9b1m".encode(), "bidi": BIDI.encode(), "half a character": b"\xed\xa0\x80",
    "separator": "a\u2028b".encode(), "path": b"act", "option": b"--all", "short option": b"-A",
    "percent": b"%2F", "query": b"a?b=c#d&e", "quotes": b"\"'`$(x)`", "html": b"<script>x</script>",
    "underscore": b"_", "like shown": b"_61", "like long": b"long-0123456789abcdef",
    "unicode": "Zoë 日本".encode(), "upper": b"ABCDEF", "json": b'{"a": 1}', "comma": b"a,b",
    "colon": b"times", "format": b"{0.id} %s %d", "backslash": b"a\\b", "wild": b"*",
}  # fmt: skip

_WHOLE = {
    "not json": b"{", "no bytes": b"", "list": b"[]", "list of pairs": b'[["reason", "x"]]',
    "text": b'"x"', "number": b"5", "huge number": b"9" * 5000, "null": b"null", "true": b"true",
    "nan": b"NaN", "infinity": b"Infinity", "empty object": b"{}", "binary": bytes(range(256)),
    "utf-16": '{"reason": "x"}'.encode("utf-16"), "deep": _DEEP,
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000, "half": _facts()[:40],
    "twice": _facts() * 2, "not utf-8": b'{"reason": "\xff"}',
}  # fmt: skip

_FACT = {
    "deep attempts": {"attempts": _DEEP.decode()}, "attempts infinity": {"attempts": "Infinity"},
    "attempts -infinity": {"attempts": "-Infinity"}, "attempts nan": {"attempts": "NaN"},
    "attempts 1e400": {"attempts": "1e400"}, "attempts true": {"attempts": "true"},
    "attempts text": {"attempts": '"three"'}, "attempts digits": {"attempts": '"3"'},
    "attempts null": {"attempts": "null"}, "attempts list": {"attempts": "[3]"},
    "attempts 1.5": {"attempts": "1.5"}, "attempts -1": {"attempts": "-1"},
    "attempts huge": {"attempts": "9" * 400}, "attempts object": {"attempts": "{}"},
    "status text": {"status": '"400"'}, "status true": {"status": "true"},
    "status list": {"status": "[400]"}, "status object": {"status": '{"a": 1}'},
    "status infinity": {"status": "Infinity"}, "status 1e400": {"status": "1e400"},
    "status 4.5": {"status": "400.5"}, "status huge": {"status": "9" * 400},
    "status -1": {"status": "-1"}, "status 0": {"status": "0"},
    "first_at text": {"first_at": '"yesterday"'}, "first_at null": {"first_at": "null"},
    "first_at list": {"first_at": "[]"}, "first_at true": {"first_at": "true"},
    "last_at text": {"last_at": '"2023-11-14"'}, "last_at object": {"last_at": "{}"},
    "reason null": {"reason": "null"}, "reason number": {"reason": "5"},
    "reason empty": {"reason": '""'}, "reason long": {"reason": '"' + "x" * 5000 + '"'},
    "reason obeyed": {"reason": json.dumps(OBEYED)}, "reason line break": {"reason": '"a\\nb"'},
    "reason list": {"reason": '["http_400"]'}, "error list": {"error": "[]"},
    "summary number": {"summary": "1"}, "summary list": {"summary": "[]"},
    "summary long": {"summary": '"' + "x" * 5000 + '"'}, "task_id null": {"task_id": "null"},
    "task_id object": {"task_id": "{}"}, "task_id long": {"task_id": '"' + "x" * 5000 + '"'},
}  # fmt: skip

_READABLE = {
    "first_at infinity": {"first_at": "Infinity"}, "first_at nan": {"first_at": "NaN"},
    "first_at 1e400": {"first_at": "1e400"}, "first_at -1e300": {"first_at": "-1e300"},
    "first_at huge": {"first_at": "9" * 400}, "first_at year 1": {"first_at": "-62135596800"},
    "last_at year 9999": {"last_at": "253402300799"}, "last_at nan": {"last_at": "NaN"},
    "texts obeyed": dict.fromkeys(("summary", "task_id", "error"), json.dumps(OBEYED)),
    "texts of language": dict.fromkeys(("summary", "task_id"), json.dumps(LANGUAGE)),
    "more facts": {"more": "[1]"}, "html": {"summary": '"<script>x</script>"'},
    "format": {"summary": '"{0.id} %s %(x)d {{ x }} {% x %}"'},
}  # fmt: skip

_EVENTS: dict[str, tuple[bytes | None, bool | None]] = {
    "no event": (None, False), "not json": (b"{", False), "no bytes": (b"", False),
    "list": (b"[]", False), "number": (b"5", False), "null": (b"null", False),
    "deep": (_DEEP, False), "deep params": (_event_with(_DEEP), None),
    "not utf-8": (b'{"url": "\xff"}', False), "no params": (b'{"url": "https://h/"}', False),
    "params text": (_event(params="x"), False), "params list": (_event(params=[]), False),
    "params nan": (_event(params={"a": float("nan")}), False),
    "params 1e400": (_event_with(b"1e400"), False),
    "params huge": (_event_with(b"9" * 5000), False),
    "url null": (_event(url=None), False), "url list": (_event(url=[]), False),
    "verb number": (_event(verb=5), False), "headers list": (_event(headers=["a"]), False),
    "headers of numbers": (_event(headers={"a": 1}), False),
    "obeyed": (_event(params={"visitors": [], "a": OBEYED}), True),
    "answer list": (_event(answer=[]), True), "answer obeyed": (_event(answer=OBEYED), True),
    "nested 300": (_event_with(b"[" * 300 + b"]" * 300), True),
}  # fmt: skip

_TIMES = {"inf": float("inf"), "-inf": float("-inf"), "negative": -1.0, "huge": 1e300, "none": None}

ODD = [
    *(Odd(f"id {name}", raw, _facts(), _event(), reason="http_400") for name, raw in _IDS.items()),
    *(Odd(f"facts {n}", f"whole {n}".encode(), raw, _event()) for n, raw in _WHOLE.items()),
    *(Odd(n, f"fact {n}".encode(), _facts_as(**raw), _event()) for n, raw in _FACT.items()),
    *(
        Odd(n, f"readable {n}".encode(), _facts_as(**raw), _event(), reason="http_400")
        for n, raw in _READABLE.items()
    ),
    *(
        Odd(f"event {n}", f"event {n}".encode(), _facts(), raw, reason="http_400", is_event=good)
        for n, (raw, good) in _EVENTS.items()
    ),
    *(
        Odd(f"time {n}", f"time {n}".encode(), _facts(), _event(), time, reason="http_400")
        for n, time in _TIMES.items()
    ),
    *(
        Odd(f"fact without {n}", f"without {n}".encode(),
            json.dumps({k: v for k, v in FACTS.items() if k != n}).encode(), _event())
        for n in FACTS
    ),
    Odd("no facts", b"no facts", None, _event()),
    Odd("time alone", b"time alone", None, None, is_event=False),
    Odd("event alone", b"event alone", None, _event(), None),
    Odd("facts alone", b"facts alone", _facts(), None, None, reason="http_400", is_event=False),
    Odd("bad facts alone", b"bad facts alone", b"{", None, None, is_event=False),
    Odd("nothing good, odd id", b"\xff/\n", b"{", b"{", float("inf"), is_event=False),
]  # fmt: skip
"""No two have the same id; all hold the same event, where they hold any."""


def write(broker: Broker, *letters: Odd) -> None:
    """Put them into the store, past it."""
    pipe = broker.client().pipeline()
    for odd in letters:
        if odd.facts is not None:
            pipe.hset(f"{BASE}facts", odd.id, odd.facts)
        if odd.event is not None:
            pipe.hset(f"{BASE}events", odd.id, odd.event)
        if odd.time is not None:
            pipe.zadd(f"{BASE}times", {odd.id: odd.time})
    pipe.execute()


def is_obeyed(text: str, *, lines: bool = False) -> bool:
    """Whether there is anything in it that an output would obey, or not take."""
    return any(
        ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" or 0xD800 <= ord(c) < 0xE000
        or 0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069
        for c in (text.replace("\n", "") if lines else text)
    )  # fmt: skip
