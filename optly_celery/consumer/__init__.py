"""The old door of what is in `optly_celery.worker.receive`."""
