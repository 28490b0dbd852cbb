"""Optimizely in a Django project: ``INSTALLED_APPS += ["optly_celery.contrib.django"]``.

``client`` is the project's Optimizely client, made from ``settings.OPTIMIZELY`` on first use::

    from optly_celery.contrib.django import client

Importing it reads, opens and starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizely.optimizely import Optimizely

    client: Optimizely

__all__ = ["client"]


def __getattr__(name: str) -> Any:
    # Not imported above: Django imports this package before its settings may be read.
    if name == "client":
        from .options import client  # noqa: PLC0415

        return client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
