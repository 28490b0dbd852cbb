"""Everything of an event but its visitors, as text, and where the visitors stand in it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_PLAIN = frozenset({str, int, float, bool, type(None)})
_VISITORS = '"visitors": ['
_MOST_KNOWN = 100
_IDENTIFIER = re.compile(r"[A-Za-z0-9]{1,32}")

_known: dict[tuple[str, str, str], Context] = {}  # by URL, headers and what stands before visitors


class Context(NamedTuple):
    """Everything of an event but its visitors, as text; ``head`` and ``tail`` surround them.

    Events with equal contexts may share a batch, and no others. Text settles what equality means:
    ``true`` is not ``1``, absent is not null, and keys in another order are another context. An
    event that cannot share one, such as a GET, has an empty context and is its own "visitors".
    ``headers`` are JSON, too.
    """

    url: str
    verb: str
    headers: str
    head: str
    tail: str
    project: str
    mergeable: bool


def take_apart(
    url: str, verb: str, headers: str, body: str, params: dict[str, Any], *, written: bool
) -> tuple[Context, str]:
    """An event's context and the text of its visitors.

    Head, visitors and tail are its body where that was ``written`` here, of ``params``; text from
    elsewhere says where nothing stands, so there the three are what is written of what it says.
    """
    listed = params.get("visitors")
    if (
        written and verb == "POST" and listed and type(listed) is list
        and next(reversed(params)) == "visitors"
    ):  # fmt: skip
        # As the SDK builds it: visitors last. What stands before them is nearly always known.
        start = body.find(_VISITORS) + len(_VISITORS)
        key = url, headers, body[:start]
        context = _known.get(key) or _learn(key, params)
        if context is not None:
            return context, body[start:-2]
    return _take_apart_slowly(url, verb, headers, body, params)


def identifier(value: object) -> str:
    """A project id as text; anything that does not look like one might be personal data."""
    text = str(value) if isinstance(value, (str, int)) else ""
    return text if _IDENTIFIER.fullmatch(text) else "unknown"


def _learn(key: tuple[str, str, str], params: dict[str, Any]) -> Context | None:
    if not _PLAIN.issuperset(map(type, list(params.values())[:-1])):
        return None
    # Nothing before them can hold the same key, and inside a string its quotes would be escaped.
    # So it is with all events whose text begins alike, as there is one way to read that.
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    url, headers, head = key
    project = identifier(params.get("project_id"))
    known = _known[key] = Context(url, "POST", headers, head, "]}", project, mergeable=True)
    return known


def _take_apart_slowly(
    url: str, verb: str, headers: str, body: str, params: dict[str, Any]
) -> tuple[Context, str]:
    project = identifier(params.get("project_id"))
    visitors = params.get("visitors")
    if verb != "POST" or not (isinstance(visitors, list) and visitors):
        return Context(url, verb, headers, "", "", project, mergeable=False), body
    keys = list(params)
    place = keys.index("visitors")
    before = json.dumps({k: params[k] for k in keys[:place]})[1:-1]
    after = json.dumps({k: params[k] for k in keys[place + 1 :]})[1:-1]
    head = "{" + (before + ", " if before else "") + _VISITORS
    tail = "]" + (", " + after if after else "") + "}"
    context = Context(url, verb, headers, head, tail, project, mergeable=True)
    return context, json.dumps(visitors)[1:-1]
