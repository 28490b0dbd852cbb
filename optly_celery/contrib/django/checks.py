"""System checks: a wrong configuration is told at start, not by missing numbers next month.

Those of each start look at settings and the file system alone. Whether the broker answers and a
worker takes the events is asked by ``manage.py check --deploy`` only: a start must neither wait
for a broker nor fail because it is away for a minute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Concern
from kombu.serialization import prepare_accept_content

from ... import celery_app as celery_apps
from ...errors import SettingsError
from ...names import DELIVER_TASK
from ...runtime.process import runtime_of
from ...runtime.runtime import Runtime
from ...status.verdict import collect, verdict
from .options import ONE_OF, current_options, make_client

TAG = "optimizely"
_ANSWER_WITHIN_S = 2.0


def check_options(**_: Any) -> Iterator[CheckMessage]:
    try:
        arguments = current_options().sdk_arguments
        if any(arguments.get(name) for name in ONE_OF):
            make_client()
            yield from _datafile(arguments.get("datafile"))
            return
    except SettingsError as exc:
        hint = "OPTIMIZELY holds options of optly_celery and arguments of the SDK's client."
        yield Error(f"{exc}.", hint=hint, id="optly_celery.E002")
        return
    yield Error(
        "OPTIMIZELY says neither where flags come from nor what they are.",
        hint='Set OPTIMIZELY = {"sdk_key": "…"}, or give it a "datafile" (its JSON, or a Path) '
        'or a "config_manager".',
        id="optly_celery.E001",
    )


def _datafile(text: Any) -> Iterator[CheckMessage]:
    with suppress(ValueError):
        if text is None or isinstance(json.loads(text), dict):
            return
    # The SDK would log that, and decide nothing.
    hint = "Give it the text of the JSON document that Optimizely serves, or a Path of its file."
    yield Error("OPTIMIZELY['datafile'] is no datafile.", hint=hint, id="optly_celery.E002")


def check_celery(**_: Any) -> Iterator[CheckMessage]:
    """The Celery app that events go through, as far as it can be seen without asking anybody."""
    try:
        runtime = runtime_of(celery_apps.current_app()).checked()
    except SettingsError as exc:
        hint = 'Celery settings of a Django project start with CELERY_, given namespace="CELERY".'
        text = f"The Celery configuration is wrong: {exc}."
        yield Error(text, hint=hint, id="optly_celery.E004")
        return
    if runtime.app in celery_apps._fallback and "OPTLY_BROKER_URL" not in os.environ:  # noqa: SLF001
        yield Error(
            "No Celery app is configured, so events would go to Redis on localhost.",
            hint="Make one in celery.py beside settings.py and import it in that package's "
            "__init__.py, as Celery's guide for Django has it; or set OPTLY_BROKER_URL.",
            id="optly_celery.E003",
        )
    elif runtime.settings.enabled:
        yield from _content(runtime.app)
        yield from _queue(runtime.app, runtime.settings.queue)
        yield from _route(runtime.app, runtime.settings.queue)
        if runtime.settings.dead_letter_url is None:
            yield Error(
                "The broker is not Redis, so there is no place for dead letters.",
                hint="Set CELERY_OPTLY_DEAD_LETTER_URL to a redis:// URL.",
                id="optly_celery.E009",
            )
        yield from _outbox(runtime)


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


def _outbox(runtime: Runtime) -> Iterator[CheckMessage]:
    place = runtime.outbox_directory
    there = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    always = runtime.settings.delivery == "outbox"
    lost = "" if always else " that are dispatched while the broker is away"
    yield (Error if always else Concern)(
        f"The outbox cannot be written: {there} is no directory that this user may write, "
        f"so events{lost} would be lost.",
        hint="Set CELERY_OPTLY_OUTBOX_DIR to a directory that the app's user may write and "
        "that outlives its processes.",
        id=f"optly_celery.{'E' if always else 'W'}007",
    )


def check_delivery(**_: Any) -> Iterator[CheckMessage]:
    """Whether the broker answers, and a worker takes events. Waits up to a few seconds."""
    try:
        runtime = runtime_of(celery_apps.current_app()).checked()
        if not runtime.settings.enabled:
            return
        found = collect(runtime, timeout_s=_ANSWER_WITHIN_S)
    except SettingsError:
        return  # check_celery's to tell
    judged = verdict(found)
    if not found.broker_answered:
        text = f"Events cannot be published: {'; '.join(found.unanswered)}."
        hint = "Start it, or correct CELERY_BROKER_URL. Events wait in the outbox meanwhile."
        yield Error(text, hint=hint, id="optly_celery.E010")
    elif not judged.healthy:
        text = f"Events are not delivered: {judged.text}."
        hint = "`manage.py optimizely status` tells more. Events wait in the broker meanwhile."
        yield Concern(text, hint=hint, id="optly_celery.W011")


register(check_options, TAG)
register(check_celery, TAG)
register(check_delivery, TAG, deploy=True)
