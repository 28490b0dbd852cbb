"""A client of the SDK that is built on first use, in each process that uses it."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from ..event_dispatcher import EventDispatcher
from ..runtime.process import at_exit, flush
from .processor import EventProcessor  # before the SDK: it says what to install

# isort: split
from optimizely.helpers import validator
from optimizely.notification_center import NotificationCenter
from optimizely.optimizely import Optimizely
from optimizely.version import __version__ as sdk_version

logger = logging.getLogger(__name__)

_METHODS = {"config_manager": "get_config", "event_processor": "process"}
_CHECKED = ("event_dispatcher", "error_handler", "logger", "notification_center", *_METHODS)


def create_client(**sdk_arguments: Any) -> Optimizely:
    """A client that takes what `optimizely.optimizely.Optimizely` takes, and behaves as it does.

    It is built on first use, once per process and again in a forked child, where the threads of
    its parent do not exist; so it may be made when a module is imported, also under a server that
    forks. It dispatches through `EventDispatcher` and `EventProcessor` unless others are given,
    and is closed at exit. Its ``notification_center`` can be had without building it, and keeps
    its listeners in a forked child.

    ``config_manager`` and ``event_processor`` may be functions (or classes) that make one, which
    are called in each process, with those of ``notification_center``, ``logger`` and
    ``error_handler`` that they take. One with a thread, made once, stands still in a child.
    ``event_processor_options`` are for the SDK's own processor, and mean nothing to ours.

    Raises:
        TypeError: an argument that the installed SDK does not know or would not take, or neither
            ``datafile`` nor ``sdk_key`` nor ``config_manager``.
    """
    _check(sdk_arguments)
    client = _Client(sdk_arguments)
    _clients.add(client)
    _reset_after_fork()
    return client


class _Client(Optimizely):  # type: ignore[misc]
    """The SDK's class without its constructor; the first look at an attribute calls that.

    What it sets becomes this object's, in one step, so that no thread sees half of it. There is
    no proxy between the caller and the SDK's methods.
    """

    __slots__ = ("_options", "_process")

    def __init__(self, options: dict[str, Any]) -> None:
        center = options.get("notification_center")
        if center is None:
            center = NotificationCenter(options.get("logger"))
        self._options = options | {"notification_center": center}
        self._forget()

    def _forget(self) -> None:
        """Be as before the first use. The notification center holds no thread, and stays."""
        # One dictionary, so that its lock is made by whoever needs it first: after gevent has
        # patched threading, and not held by a thread that a fork has left behind.
        self._process: dict[str, Any] = {}
        self._be({"notification_center": self._options["notification_center"]})

    def _be(self, attributes: dict[str, Any]) -> None:
        object.__setattr__(self, "__dict__", attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what inspect, copy and others look for everywhere
            raise AttributeError(name)
        self._build()
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"'Optimizely' object has no attribute '{name}'") from None

    def _build(self) -> None:
        process = self._process
        with process.setdefault("lock", threading.RLock()):
            if "built" in process:
                return
            if "building" in process:
                raise RuntimeError("the Optimizely client is used by what it is built from")
            process["building"] = True
            try:
                built = Optimizely(**self._arguments())
            finally:
                del process["building"]
            built.__dict__.update(self.__dict__)
            process["built"] = process["to_close"] = built
            self._be(built.__dict__)
            at_exit(_close_all)

    def _arguments(self) -> dict[str, Any]:
        options = self._options | {
            name: _made(given, self._options) if _is_factory(name, given) else given
            for name, given in self._options.items()
        }
        if options.get("event_dispatcher") is None:
            options["event_dispatcher"] = EventDispatcher
        if options.get("event_processor") is None:
            options["event_processor"] = EventProcessor(
                options["event_dispatcher"],
                logger=options.get("logger"),
                notification_center=options["notification_center"],
            )
        for name in _METHODS:
            if getattr(options.get(name), "is_running", True) is False:
                logger.warning(
                    "the %s of the Optimizely client has no thread in this process: give "
                    "create_client a function that makes one, for each process",
                    name,
                )
        return options

    def close(self) -> None:
        """Close it as the SDK does, then flush the outbox. It goes on answering, as the SDK's."""
        self._close()
        flush()

    def _close(self) -> None:
        built = self._process.pop("to_close", None)
        if built is None:
            return
        if getattr(built.event_processor, "is_running", True) is False:
            built.event_processor = None  # stopping a thread that is not there can wait forever
        if hasattr(built, "close"):
            built.close()
            return
        for part in (built.event_processor, built.config_manager):  # before 5.0
            if callable(getattr(part, "stop", None)):
                part.stop()

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(create_client, **self._options), ()


_clients: weakref.WeakSet[_Client] = weakref.WeakSet()


def _check(arguments: dict[str, Any]) -> None:
    known = list(inspect.signature(Optimizely).parameters)
    for name in arguments:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it knows {', '.join(known)}"
            raise TypeError(f"optimizely-sdk {sdk_version} knows no argument {name!r}: {hint}")
    given = {name: value for name, value in arguments.items() if value is not None}
    if not {"datafile", "sdk_key", "config_manager"} & set(given):
        raise TypeError("create_client needs a datafile, an sdk_key or a config_manager")
    if not isinstance(given.get("datafile", ""), (str, bytes)):
        raise TypeError("datafile is the JSON text, not what it was parsed into")
    for name in _CHECKED:
        value = given.get(name)
        if value is None or _is_factory(name, value):
            continue
        if not getattr(validator, f"is_{name}_valid")(value):
            raise TypeError(f"{type(value).__qualname__} will not do as {name}: see the SDK")


def _is_factory(name: str, value: object) -> bool:
    made = not isinstance(value, type) and hasattr(value, _METHODS.get(name, ""))
    return name in _METHODS and callable(value) and not made


def _made(factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    takes = inspect.signature(factory).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    offered = ("notification_center", "logger", "error_handler")
    return factory(**{n: options[n] for n in offered if n in options and (anything or n in takes)})


def _close_all() -> None:
    for client in list(_clients):
        try:
            client._close()  # noqa: SLF001 - our own class
        except Exception:  # noqa: PERF203 - each of them
            logger.exception("an Optimizely client could not be closed")


@functools.cache
def _reset_after_fork() -> None:
    os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for client in list(_clients):
        client._forget()  # noqa: SLF001 - our own class
