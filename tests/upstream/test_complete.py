"""Nothing is borrowed that no row tells of, and no row tells of what nobody uses any more."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import optly_celery

from . import __name__ as here
from . import __path__ as rooms
from .borrowed import Borrowed

PACKAGE = Path(optly_celery.__file__).parent
FOREIGN = (
    "celery", "kombu", "billiard", "redis", "requests", "urllib3", "http", "optimizely",
    "multiprocessing",
)  # fmt: skip

# Modules that their libraries' guides import from, and names that look private and are not.
DOORS = {
    "celery", "celery.bootsteps", "celery.events", "celery.exceptions", "celery.signals", "kombu",
    "http", "http.client", "http.cookiejar", "kombu.exceptions", "optimizely",
    "optimizely.event", "optimizely.event.event_processor",
    "optimizely.helpers.enums", "optimizely.notification_center", "optimizely.optimizely",
    "optimizely.optimizely_user_context", "redis", "redis.backoff", "redis.retry", "requests",
    "requests.adapters", "urllib3", "urllib3.connection", "urllib3.exceptions", "urllib3.util",
}  # fmt: skip
# The last is Celery's for a base of tasks.
DOCUMENTED = {"_asdict", "_make", "_replace", "_fields", "_meta", "abstract"}
OVERRIDABLE = {  # by their guides
    "celery.bootsteps", "optimizely.event.event_processor", "optimizely.optimizely",
}  # fmt: skip

Use = tuple[str, str]  # module of the package, name


def table() -> list[Borrowed]:
    """All rows, also of libraries that are not installed."""
    modules = [m.name for m in pkgutil.iter_modules(rooms) if m.name.startswith("test_")]
    return [
        row
        for name in modules
        if name != "test_complete"
        for row in importlib.import_module(f"{here}.{name}").ROWS
    ]


def told() -> set[Use]:
    return {(where, row.last) for row in table() for where in row.where}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def is_private(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.startswith("_")
        and not name.startswith("__")
        and name not in DOCUMENTED
    )


def ours(tree: ast.AST) -> set[str]:
    """Names that a piece of source defines: functions, variables, attributes of any object."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                names.add(node.attr)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            names |= set(ast.literal_eval(node.value))
    return names


def uses_on_others(path: str, tree: ast.Module) -> Iterator[Use]:
    """Private attributes of whatever is not ``self``; ``super()`` is the other library's."""
    own_modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    defined = ours(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "hasattr", "setattr", "delattr"):
                name = node.args[1]
                if isinstance(name, ast.Constant) and is_private(name.value):
                    yield path, str(name.value)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            is_own = owner in ("self", "cls", *own_modules) or node.attr in defined
            if owner == "super()" or not is_own:
                yield path, node.attr


def uses_on_self(path: str, tree: ast.Module, everywhere: set[str]) -> Iterator[Use]:
    """Private attributes of ``self`` that no class of the package defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            if owner in ("self", "cls") and node.attr not in everywhere:
                yield path, node.attr


def uses_by_import(path: str, tree: ast.Module) -> Iterator[Use]:
    """Imports from where the library's own guide imports nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(FOREIGN) and alias.name not in DOORS:
                    yield path, alias.name.rpartition(".")[2]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module or ""
            known = module in DOORS or module.split(".")[0] not in FOREIGN
            for alias in node.names:
                if is_private(alias.name) or not known:
                    yield path, alias.name


def uses_by_override() -> Iterator[Use]:
    """What classes of the package define or set over a library's, also in a mixin of ours."""
    for path, tree in sources():
        if "/contrib/" in f"/{path}" or not any(isinstance(n, ast.ClassDef) for n in tree.body):
            continue
        module = importlib.import_module(f"optly_celery.{path[:-3].replace('/', '.')}")
        for cls in [c for c in vars(module).values() if inspect.isclass(c)]:
            for place, own in enumerate(cls.__mro__):
                if cls.__module__ == module.__name__ and own.__module__.startswith("optly_celery."):
                    yield from _overridden(own, cls.__mro__[place + 1 :])


def _overridden(own: type, bases: tuple[type, ...]) -> Iterator[Use]:
    path = Path(inspect.getfile(own)).relative_to(PACKAGE).as_posix()
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    bodies = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == own.__name__]
    names = {n for n in ours(ast.Module(bodies, [])) if not n.startswith("__")}
    for name in sorted(names & {n for base in bases for n in vars(base)}):
        base = next(base for base in bases if name in vars(base))
        is_foreign = base.__module__.split(".")[0] in FOREIGN
        if is_foreign and base.__module__ not in OVERRIDABLE and name not in DOCUMENTED:
            yield path, name


def used() -> set[Use]:
    everywhere: set[str] = set().union(*(ours(tree) for _, tree in sources()))
    found = set(uses_by_override())
    for path, tree in sources():
        found |= {
            *uses_on_others(path, tree),
            *uses_on_self(path, tree, everywhere),
            *uses_by_import(path, tree),
        }
    return found


def test_every_borrowed_name_has_a_row():
    """With what it is for and what to do when it is gone: add one to the library's module."""
    missing = sorted(used() - told())

    assert missing == [], "in these modules of the package these names are borrowed without a row"


def test_every_row_is_of_a_name_that_is_used():
    """Where it says: a row that nobody needs hides that something is not borrowed any more."""
    texts = {path: (PACKAGE / path).read_text(encoding="utf-8") for path, _ in sources()}
    idle = [
        (row.name, where)
        for row in table()
        for where in row.where
        if row.last not in texts.get(where, "")
    ]

    assert idle == []


def test_every_row_says_what_to_do():
    """Or it is of no use to whoever sees it fail."""
    assert [row.name for row in table() if not (row.why and row.gone and row.seen)] == []
    names = [(row.name, where) for row in table() for where in row.where]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("message._raw", {"_raw"}),
        ("getattr(channel, '_size', None)", {"_size"}),
        ("class A(B):\n def f(self): super()._f()\n def _f(self): super()._f()", {"_f"}),
        ("class A(B):\n def f(self): self._theirs()", {"_theirs"}),
        ("class A(B):\n def f(self): self._mine = 1; other._mine", set()),
        ("from ..room import thing\nthing._fallback", set()),
        ("row._asdict()", set()),
        ("from celery._state import get_current_app", {"get_current_app"}),
        ("from celery import _state", {"_state"}),
        ("from celery import bootsteps", set()),
        ("import billiard.einfo", {"einfo"}),
        ("from django.db import _private", {"_private"}),
    ],
)
def test_what_counts_as_borrowed(source, names):
    """Else the table is complete because nobody looks."""
    tree = ast.parse(source)

    found = {
        *uses_on_others("a.py", tree),
        *uses_on_self("a.py", tree, ours(tree)),
        *uses_by_import("a.py", tree),
    }

    assert found == {("a.py", name) for name in names}
