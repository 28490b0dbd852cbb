"""Attributes that are made on first use, once, whichever threads ask for them first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_T = TypeVar("_T")
_LOCK = "_once_lock"


class lazy(Generic[_T]):  # noqa: N801 - used as `property` is
    """As `functools.cached_property`, which lets several threads make several since Python 3.12.

    The others wait for the first one. What raises is tried again by the next one who asks. Each
    object has a lock of its own, so that one that is made after a fork never meets a lock that
    another thread of the parent held.
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[_T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: Any, owner: type) -> lazy[_T] | _T:
        if instance is None:
            return self
        # No data descriptor: from the second look on, Python takes what is in here by itself.
        made = vars(instance)
        with made.setdefault(_LOCK, threading.RLock()):
            if self._name not in made:
                made[self._name] = self._make(instance)
            found: _T = made[self._name]
            return found
