"""What the Event API takes in strict mode, as a JSON schema (``event_api.json``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from typing import Any

from ..errors import SettingsError
from .server import json_of

_PLAIN = re.compile(r"[A-Za-z_$][\w$-]{0,63}", re.ASCII)
_NAMES = {
    dict: "object", list: "array", str: "string", int: "integer", float: "number",
    bool: "boolean", type(None): "null",
}  # fmt: skip


def strict_check() -> Callable[[bytes], bool]:
    """A function that says whether a body is what the Event API documents.

    Raises:
        SettingsError: jsonschema is not installed.
    """
    validator = _validator("a strict collector", ", or make it with strict=False")
    return lambda body: bool(validator.is_valid(json_of(body)))


def faults_of(params: object) -> Iterator[str]:
    """What the schema refuses in an event's params: the path of each field, and why.

    Fields are told by their names and places; no value is, as that may be personal data.

    Raises:
        SettingsError: jsonschema is not installed.
    """
    found = _validator("an explanation").iter_errors(params)
    try:
        errors = sorted(found, key=lambda e: [(isinstance(p, str), p) for p in e.absolute_path])
    except RecursionError:
        yield "the whole: nested too deep to be looked at"
        return
    # Each missing name is an error of its own.
    yield from dict.fromkeys(f"{_path(e.absolute_path)}: {_why(e)}" for e in errors)


def _validator(who: str, otherwise: str = "") -> Any:
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - an optional package
    except ImportError:
        raise SettingsError(
            f"{who} needs jsonschema: pip install 'optly-celery[testing]'{otherwise}"
        ) from None
    schema = json.loads(resources.files(__package__).joinpath("event_api.json").read_bytes())
    # Not 2020-12, in which the schema means the same: SDK 3 and 4 hold jsonschema back at 3.2.
    return Draft7Validator(schema)


def _path(parts: Iterable[str | int]) -> str:
    """For example ``visitors[3].snapshots[0].events[1].timestamp``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_name(part)}" for part in parts)
    return text.removeprefix(".") or "the whole"


def _name(key: str) -> str:
    """A key as it may be printed: whoever made the event may have called it anything."""
    return key if _PLAIN.fullmatch(key) else json.dumps(key[:64])


def _why(error: Any) -> str:
    rule, wanted, found = error.validator, error.validator_value, error.instance
    if rule == "required":
        return f"{_names(name for name in wanted if name not in found)} missing"
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        return f"{_names(name for name in found if name not in known)} not documented"
    if rule == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        return f"{' or '.join(kinds)} wanted, {_NAMES.get(type(found), 'something else')} found"
    return f"against the rule {rule} {json.dumps(wanted)[:80]}"


def _names(keys: Iterable[str]) -> str:
    return ", ".join(_name(key) for key in keys)
