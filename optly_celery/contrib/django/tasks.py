"""Where ``app.autodiscover_tasks()`` of a Django project looks for the deliver task."""

from ...tasks import deliver

__all__ = ["deliver"]
