"""A shop with one product, one experiment and one conversion."""

from .celery import app as celery_app

__all__ = ["celery_app"]
