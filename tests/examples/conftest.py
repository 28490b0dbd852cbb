"""The examples as a newcomer starts them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling all that is installed takes longer than the rest of such a test."""
    monkeypatch.setenv("PIP_NO_COMPILE", "1")
