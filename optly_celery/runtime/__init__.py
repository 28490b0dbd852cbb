"""What this process holds: the parts for each Celery app, its counters, its end."""
