"""An old door of `optly_celery.contrib.django`."""

from .options import client, make_client

__all__ = ["client", "make_client"]
