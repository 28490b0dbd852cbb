"""The standalone Celery app: what ``celery -A optly_celery worker`` runs."""

from __future__ import annotations

from .celery_app import standalone_app

app = standalone_app()
