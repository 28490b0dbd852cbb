"""``settings.OPTIMIZELY``, read once into one frozen object and checked, and the client made of it.

It holds arguments of the SDK's client (``sdk_key``, ``datafile``, …) and the options below, all
in lower case. What concerns the way of an event through Celery is Celery configuration instead:
``CELERY_OPTLY_…``.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.functional import SimpleLazyObject, empty
from django.utils.module_loading import import_string

from ...errors import SettingsError
from ...event_dispatcher import EventDispatcher
from ...settings.values import seconds, text

ONE_OF = ("sdk_key", "datafile", "config_manager")
"""The SDK's client needs one of these, or it has nothing to decide by."""

# Arguments that are text themselves; text for any other is a dotted path.
_PLAIN = ("sdk_key", "datafile", "datafile_access_token")
# Functions that make these are for create_client to call, in each process.
_FACTORIES = ("config_manager", "event_processor")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``settings.OPTIMIZELY`` may hold beside arguments of the SDK's client.

    ``user_id`` and ``attributes`` are functions of the request, or their dotted paths;
    ``attributes`` may be a dictionary as well. ``on_commit`` is the alias of a database, or true
    for the default one.

    Raises:
        SettingsError: a value is none that is allowed; the message names it.
    """

    user_id: Callable[[Any], object] | None = None
    attributes: Callable[[Any], Mapping[str, Any] | None] | None = None
    on_commit: str | None = None
    cookie_name: str = "optimizely_visitor"
    cookie_age: float = 180 * 86_400.0  # half a year
    cookie_domain: str | None = None
    sdk_arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)  # with the key

    @classmethod
    def of(cls, given: object) -> Options:
        """Check and read a dictionary such as ``settings.OPTIMIZELY``.

        Raises:
            SettingsError: as above; also for a key that is neither an option nor an argument of
                the SDK's client.
        """
        if not isinstance(given, Mapping):
            raise SettingsError(f"OPTIMIZELY is a {type(given).__name__}: a dictionary is allowed")
        ours = _CHECKS.keys()
        known = ours | sdk_arguments()
        for key in given:
            if key not in known:
                raise SettingsError(_unknown(key, known))
        found = {name: value for name, value in given.items() if value is not None}
        options = {name: _CHECKS[name](_key(name), found[name]) for name in ours & found.keys()}
        arguments = {name: _argument(name, found[name]) for name in found.keys() - ours}
        return cls(**options, sdk_arguments=arguments)


@functools.cache
def current_options() -> Options:
    """The project's options; read once, and again after ``override_settings``.

    Raises:
        SettingsError: they are wrong.
    """
    return Options.of(getattr(settings, "OPTIMIZELY", {}))


@functools.cache
def sdk_arguments() -> frozenset[str]:
    """Names of the arguments that the installed SDK's client takes.

    Raises:
        SettingsError: the SDK is not installed.
    """
    try:
        from optimizely.optimizely import Optimizely  # noqa: PLC0415 - an optional package
    except ImportError:
        raise SettingsError(
            "the Optimizely SDK cannot be imported: pip install optimizely-sdk"
        ) from None
    return frozenset(inspect.signature(Optimizely).parameters)


def _key(name: str) -> str:
    return f"OPTIMIZELY[{name!r}]"


def _unknown(key: object, known: set[str]) -> str:
    near = difflib.get_close_matches(str(key).lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    return f"{_key(str(key))} is neither an option nor an argument of the SDK's client: {hint}"


def _argument(name: str, value: object) -> object:
    """A value for the SDK, found or made only now, so that settings stay plain.

    A dotted path names the value itself, or a function or class that makes it.
    """
    if name == "datafile" and isinstance(value, Path):
        try:
            return value.read_text(encoding="utf-8")
        except OSError as exc:
            raise SettingsError(
                f"{_key(name)} is {str(value)!r}, which cannot be read: {exc.strerror}"
            ) from None
    if name in _PLAIN or not isinstance(value, str):
        return value
    found = _import(_key(name), value)
    return found() if callable(found) and name not in _FACTORIES else found


def _import(key: str, path: str) -> Any:
    try:
        return import_string(path)
    except ImportError as exc:
        raise SettingsError(f"{key} is {path!r}, which cannot be imported: {exc}") from None


def _function(key: str, value: object) -> Callable[[Any], Any]:
    found = _import(key, value) if isinstance(value, str) else value
    if callable(found):
        return found  # type: ignore[no-any-return]
    raise SettingsError(f"{key} is {value!r}: a function or its dotted path is allowed")


def _attributes(key: str, value: object) -> Callable[[Any], Any]:
    if isinstance(value, Mapping):
        return lambda _request: value
    return _function(key, value)


def _alias(key: str, value: object) -> str | None:
    if value is False:
        return None
    alias = "default" if value is True else value
    if alias not in settings.DATABASES:
        raise SettingsError(
            f"{key} is {value!r}: true, false or one of DATABASES is allowed "
            f"({', '.join(settings.DATABASES)})"
        )
    return str(alias)


_CHECKS: Mapping[str, Callable[[str, object], Any]] = {
    "user_id": _function,
    "attributes": _attributes,
    "on_commit": _alias,
    "cookie_name": text,
    "cookie_age": seconds(0),
    "cookie_domain": text,
}

_made: dict[str, Any] = {}


def make_client() -> Any:
    """The client for the options of now; not built, so nothing is opened.

    Raises:
        SettingsError: ``settings.OPTIMIZELY`` is wrong.
    """
    # Not at the top: django.setup() need not wait for the SDK.
    from ...sdk.client import create_client  # noqa: PLC0415
    from .on_commit import OnCommitProcessor  # noqa: PLC0415

    options = current_options()
    arguments = dict(options.sdk_arguments)
    if not any(arguments.get(name) for name in ONE_OF):
        raise SettingsError(f"OPTIMIZELY names no {' and no '.join(ONE_OF)}: give one of them")
    if options.on_commit is not None:
        if "event_processor" in arguments:
            raise SettingsError(
                "OPTIMIZELY['on_commit'] needs the event processor of optly_celery: "
                "leave out 'event_processor'"
            )
        arguments["event_processor"] = functools.partial(
            OnCommitProcessor, options.on_commit, arguments.get("event_dispatcher", EventDispatcher)
        )
    try:
        return create_client(**arguments)
    except TypeError as exc:
        raise SettingsError(f"OPTIMIZELY is wrong: {exc}") from None


# Two threads at once may make two; the one that is kept is the one that both return.
client: Any = SimpleLazyObject(
    lambda: _made.get("client") or _made.setdefault("client", make_client())
)
"""Behaves as ``optimizely.Optimizely``; made from ``settings.OPTIMIZELY`` on first use.

Raises:
    SettingsError: on first use, if ``settings.OPTIMIZELY`` is wrong.
"""


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("OPTIMIZELY", "DATABASES"):
        current_options.cache_clear()
        _made.clear()
        client._wrapped = empty  # noqa: SLF001 - Django's own way to have it made again


setting_changed.connect(_forget)
