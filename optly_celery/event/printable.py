"""What comes from elsewhere, as text that a terminal, a log or a page shows and does not obey."""

from __future__ import annotations

import json
import re
from typing import Any

# Controls (C0, DEL, C1), line and paragraph separators, what turns the direction of the text
# around it, and halves of characters, which no output takes. All else is somebody's language.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(value: object) -> str:
    r"""Text for a part of one line, with escapes, such as ``\x1b``, for what would be obeyed."""
    return _OBEYED.sub(_escape, value if isinstance(value, str) else str(value))


def json_text(value: Any, *, indent: int | None = None, only_ascii: bool = True) -> str:
    """JSON of a value that was JSON: one that any reader takes, and that no output obeys.

    NaN and its like become text. What is nested too deep to be laid out comes on one line, and
    where Python cannot even do that, a sentence stands for it.
    """
    options = {"ensure_ascii": only_ascii}
    try:
        text = _dumps(value, options | {"indent": indent})
    except RecursionError:
        text = _without_the_deep(value, options)
    return _OBEYED.sub(_json_escape, text)


def _dumps(value: Any, options: dict[str, Any]) -> str:
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=str), **options)


def _without_the_deep(value: Any, options: dict[str, Any]) -> str:
    try:
        return _dumps(value, options)
    except RecursionError:
        if not isinstance(value, dict):
            return '"(nested too deep to be shown)"'
        parts = [f"{json.dumps(k)}: {_without_the_deep(v, options)}" for k, v in value.items()]
        return f"{{{', '.join(parts)}}}"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    # Line breaks are the layout's: json writes those in texts as escapes.
    return "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}"
