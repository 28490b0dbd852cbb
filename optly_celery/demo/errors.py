"""What keeps the demo from running, each in a sentence that says what to do."""

from __future__ import annotations

from ..errors import OptlyCeleryError


class DemoError(OptlyCeleryError):
    """The demo cannot run here; the message says why, and what to do next."""


def not_installed(package: str) -> DemoError:
    """The error for a package of the ``demo`` extra that is not there."""
    return DemoError(
        f"{package} is not installed; the demo's packages come with: "
        "pip install 'optly-celery[demo]'"
    )
