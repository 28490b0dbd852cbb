"""What holds for every test."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_says_what_it_promises():
    """Its name is the rule; whoever sees it fail reads in its docstring what that is for."""
    found, silent = 0, []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if named and node.name.startswith("test_"):
                found += 1
                if not ast.get_docstring(node):
                    silent.append(f"{path.relative_to(TESTS)}:{node.lineno} {node.name}")

    assert found
    assert silent == []
