"""A row: a name of another library, undocumented, that optly_celery uses."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

Look = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """One name; ``where`` are modules of the package, ``holds`` looks at what is relied upon."""

    name: str
    where: tuple[str, ...]
    why: str
    gone: str
    seen: str
    since: str = ""
    holds: Look | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def last(self) -> str:
        """The name itself, without what it belongs to."""
        return re.split(r"[:.]", self.name)[-1]

    def check(self) -> None:
        """Fail, saying what to do, when the name is not there or is not what it was."""
        pytest.importorskip(re.split(r"[:.]", self.name)[0])
        if self.since and _is_older(*self.since.split()):
            pytest.skip(f"new in {self.since}")
        advice = f"{', '.join(self.where)}: {self.why}. Seen: {self.seen}. To do: {self.gone}"
        if not is_there(self.name):
            pytest.fail(f"{self.name} is gone. {advice}", pytrace=False)
        if self.holds is not None:
            try:
                self.holds()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is not what it was
                pytest.fail(f"{self.name} is not what it was: {exc!r}. {advice}", pytrace=False)


def rows(
    owner: str,
    *,
    where: str,
    gone: str,
    seen: str,
    names: Mapping[str, str | tuple[str, Look]],
    since: str = "",
) -> list[Borrowed]:
    """A row for each name of one owner: what it is for, and perhaps a look at what it does."""
    made = []
    for name, value in names.items():
        why, holds = (value, None) if isinstance(value, str) else value
        whole = f"{owner}{'.' if ':' in owner else ':'}{name}" if name else owner
        made.append(
            Borrowed(
                name=whole, where=tuple(where.split()), why=why, gone=gone, seen=seen,
                since=since, holds=holds,
            )
        )  # fmt: skip
    return made


def found(name: str) -> Any:
    """What ``module:a.b`` names."""
    module, _, path = name.partition(":")
    thing: Any = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        if inspect.ismodule(thing) and not hasattr(thing, part):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{thing.__name__}.{part}")
        thing = getattr(thing, part)
    return thing


def is_there(name: str) -> bool:
    """Whether a module, class or object has it, or a class's methods set it on their object."""
    try:
        found(name)
    except ImportError:
        return False
    except AttributeError:
        owner, _, last = name.rpartition(".")
        return ":" in owner and is_there(owner) and _sets(found(owner), last)
    return True


def takes(name: str, *parameters: str) -> Look:
    """Look whether a function has parameters of these names."""

    def look() -> None:
        known = inspect.signature(found(name)).parameters
        assert set(parameters) <= set(known), f"it takes {', '.join(known)}"

    return look


def says(name: str, *texts: str) -> Look:
    """Look whether the source of a function or class has these texts, such as a call."""

    def look() -> None:
        thing = found(name)
        thing = getattr(thing, "fget", getattr(thing, "func", thing))  # of a property
        source = inspect.getsource(thing)
        missing = [text for text in texts if text not in source]
        assert not missing, f"{name} does not say {missing}"

    return look


def _sets(cls: Any, name: str) -> bool:
    sets = re.compile(rf"\bself\.{re.escape(name)}\b[^=\n(]*=[^=]")
    return isinstance(cls, type) and any(
        sets.search(inspect.getsource(base))
        for base in cls.__mro__
        if base.__module__ != "builtins"
    )


def _is_older(distribution: str, than: str) -> bool:
    try:
        ours = distribution == "Python"
        installed = platform.python_version() if ours else version(distribution)
    except PackageNotFoundError:
        return False
    return _numbers(installed) < _numbers(than)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
