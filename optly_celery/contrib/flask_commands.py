"""An old door of `optly_celery.contrib.flask`."""

from .flask import _Commands as Commands

__all__ = ["Commands"]
