"""What the Event API takes in strict mode, as a JSON schema (``event_api.json``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources

from ..errors import SettingsError
from .server import json_of


def strict_check() -> Callable[[bytes], bool]:
    """A function that says whether a body is what the Event API documents.

    Raises:
        SettingsError: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft7Validator  # noqa: PLC0415 - an optional package
    except ImportError:
        raise SettingsError(
            "a strict collector needs jsonschema: pip install 'optly-celery[testing]', "
            "or make it with strict=False"
        ) from None
    schema = json.loads(resources.files(__package__).joinpath("event_api.json").read_bytes())
    # Not 2020-12, in which the schema means the same: SDK 3 and 4 hold jsonschema back at 3.2.
    validator = Draft7Validator(schema)
    return lambda body: bool(validator.is_valid(json_of(body)))
