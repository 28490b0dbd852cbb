"""What may be wrong with a Celery app's own configuration, for the events that go through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Concern
from kombu.serialization import prepare_accept_content

from ...names import DELIVER_TASK
from ...settings.settings import Settings


def problems(app: Any, settings: Settings) -> Iterator[CheckMessage]:
    """Everything that can be seen without asking the broker."""
    yield from _content(app)
    yield from _queue(app, settings.queue)
    yield from _route(app, settings.queue)
    if settings.dead_letter_url is None:
        yield Error(
            "The broker is not Redis, so there is no place for dead letters.",
            hint="Set CELERY_OPTLY_DEAD_LETTER_URL to a redis:// URL.",
            id="optly_celery.E009",
        )


def _content(app: Any) -> Iterator[CheckMessage]:
    accepted = prepare_accept_content(app.conf.accept_content or ())
    if "application/json" not in accepted:
        yield Error(
            "The project's workers refuse JSON, which is what events are enqueued as.",
            hint='Add "json" to CELERY_ACCEPT_CONTENT.',
            id="optly_celery.E005",
        )
    for kind in ("application/x-python-serialize", "application/x-pickle"):
        if kind in accepted:
            yield Concern(
                "The project's workers accept pickle: who can write to the broker can run code.",
                hint='Set CELERY_ACCEPT_CONTENT = ["json"], or give events a worker of their own: '
                "celery -A optly_celery worker.",
                id="optly_celery.W005",
            )


def _queue(app: Any, queue: str) -> Iterator[CheckMessage]:
    if not app.conf.task_queues or queue in app.amqp.queues:
        return
    if app.conf.task_create_missing_queues:
        yield Concern(
            f"The queue {queue!r} is not in CELERY_TASK_QUEUES: no worker of this project takes "
            "events from it unless it is started with -Q.",
            hint="Add it, or start a worker for it: "
            f"celery -A optly_celery worker, or celery -A yourproject worker -Q {queue}.",
            id="optly_celery.W006",
        )
    else:
        yield Error(
            f"No worker of this project can take events: the queue {queue!r} is not in "
            "CELERY_TASK_QUEUES, and CELERY_TASK_CREATE_MISSING_QUEUES is false.",
            hint="Add it, or set CELERY_OPTLY_QUEUE to a queue that is there.",
            id="optly_celery.E006",
        )


def _route(app: Any, queue: str) -> Iterator[CheckMessage]:
    # Only what is written down: a router that is a function may need a task's arguments.
    routes = app.conf.task_routes
    route = routes.get(DELIVER_TASK) if isinstance(routes, dict) else None
    routed = route.get("queue") if isinstance(route, dict) else route
    if isinstance(routed, str) and routed != queue:
        yield Concern(
            f"CELERY_TASK_ROUTES sends {DELIVER_TASK} to the queue {routed!r}, but events are "
            f"enqueued to {queue!r}, whatever the routes say.",
            hint=f"Set CELERY_OPTLY_QUEUE = {routed!r} and remove the route.",
            id="optly_celery.W008",
        )
