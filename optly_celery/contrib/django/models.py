"""No table: a model that the admin site can list, and permissions can name."""

from __future__ import annotations

from django.db import models


class DeadLetter(models.Model):  # type: ignore[misc]  # noqa: DJ008 - it has no instances
    """An event kept for a person. Dead letters are in Redis, not in a database."""

    id = models.CharField(primary_key=True, max_length=64)

    class Meta:
        """Deleting means purging, which needs Django's own permission for that."""

        managed = False
        default_permissions = ("view", "delete")
        permissions = (
            ("replay_deadletter", "Can replay dead letter"),
            ("view_deadletter_event", "Can view the event of a dead letter, which is personal"),
        )
