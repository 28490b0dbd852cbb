"""The Django app: registers system checks, and leaves the rest to whoever uses it first."""

from __future__ import annotations

from django.apps import AppConfig


class OptimizelyConfig(AppConfig):  # type: ignore[misc]
    """``optly_celery.contrib.django`` in ``INSTALLED_APPS``."""

    name = "optly_celery.contrib.django"
    label = "optly_celery"
    verbose_name = "Optimizely events"

    def ready(self) -> None:
        """Register the checks, which importing them does. Opens nothing."""
        from . import checks  # noqa: F401, PLC0415 - after all apps are there
