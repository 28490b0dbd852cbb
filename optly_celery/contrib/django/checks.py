"""System checks: a wrong configuration is told at start, not by missing numbers next month.

Those of each start look at settings and the file system alone. Whether the broker answers and a
worker takes the events is asked by ``manage.py check --deploy`` only: a start must neither wait
for a broker nor fail because it is away for a minute.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Concern

from ... import celery_app as celery_apps
from ...errors import SettingsError
from ...runtime.process import runtime_of
from ...runtime.runtime import Runtime
from ...status.verdict import collect, verdict
from . import celery_checks
from .lazy_client import ONE_OF, make_client
from .options import current_options

TAG = "optimizely"
_ANSWER_WITHIN_S = 2.0


def register() -> None:
    """Have Django run these checks."""
    checks.register(check_options, TAG)
    checks.register(check_celery, TAG)
    checks.register(check_delivery, TAG, deploy=True)


def check_options(**_: Any) -> list[CheckMessage]:
    """``settings.OPTIMIZELY``."""
    try:
        options = current_options()
        if any(options.sdk_arguments.get(name) for name in ONE_OF):
            make_client()
            return _datafile(options.sdk_arguments.get("datafile"))
    except SettingsError as exc:
        hint = "OPTIMIZELY holds options of optly_celery and arguments of the SDK's client."
        return [Error(f"{exc}.", hint=hint, id="optly_celery.E002")]
    return [
        Error(
            "OPTIMIZELY says neither where flags come from nor what they are.",
            hint='Set OPTIMIZELY = {"sdk_key": "…"}, or give it a "datafile" (its JSON, or a Path) '
            'or a "config_manager".',
            id="optly_celery.E001",
        )
    ]


def _datafile(text: Any) -> list[CheckMessage]:
    try:
        if text is None or isinstance(json.loads(text), dict):
            return []
    except ValueError:
        pass
    # The SDK would log that, and decide nothing.
    hint = "Give it the text of the JSON document that Optimizely serves, or a Path of its file."
    return [Error("OPTIMIZELY['datafile'] is no datafile.", hint=hint, id="optly_celery.E002")]


def check_celery(**_: Any) -> list[CheckMessage]:
    """The Celery app that events go through, as far as it can be seen without asking anybody."""
    try:
        runtime = runtime_of(celery_apps.current_app()).checked()
        settings = runtime.settings
    except SettingsError as exc:
        return [_wrong(exc)]
    if runtime.app in celery_apps._fallback and "OPTLY_BROKER_URL" not in os.environ:  # noqa: SLF001
        return [
            Error(
                "No Celery app is configured, so events would go to Redis on localhost.",
                hint="Make one in celery.py beside settings.py and import it in that package's "
                "__init__.py, as Celery's guide for Django has it; or set OPTLY_BROKER_URL.",
                id="optly_celery.E003",
            )
        ]
    if not settings.enabled:
        return []
    return [*celery_checks.problems(runtime.app, settings), *_outbox(runtime)]


def check_delivery(**_: Any) -> list[CheckMessage]:
    """Whether the broker answers, and a worker takes events. Waits up to a few seconds."""
    try:
        runtime = runtime_of(celery_apps.current_app()).checked()
        if not runtime.settings.enabled:
            return []
        found = collect(runtime, timeout_s=_ANSWER_WITHIN_S)
    except SettingsError:
        return []  # check_celery's to tell
    if not found.broker_answered:
        text = "; ".join(found.unanswered)
        hint = "Start it, or correct CELERY_BROKER_URL. Events wait in the outbox meanwhile."
        return [Error(f"Events cannot be published: {text}.", hint=hint, id="optly_celery.E010")]
    judged = verdict(found)
    if judged.healthy:
        return []
    hint = "`manage.py optimizely status` tells more. Events wait in the broker meanwhile."
    return [Concern(f"Events are not delivered: {judged.text}.", hint=hint, id="optly_celery.W011")]


def _wrong(exc: SettingsError) -> CheckMessage:
    hint = 'Celery settings of a Django project start with CELERY_, given namespace="CELERY".'
    return Error(f"The Celery configuration is wrong: {exc}.", hint=hint, id="optly_celery.E004")


def _outbox(runtime: Runtime) -> list[CheckMessage]:
    place = runtime.outbox_directory
    there = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    always = runtime.settings.delivery == "outbox"
    lost = "" if always else " that are dispatched while the broker is away"
    return [
        (Error if always else Concern)(
            f"The outbox cannot be written: {there} is no directory that this user may write, "
            f"so events{lost} would be lost.",
            hint="Set CELERY_OPTLY_OUTBOX_DIR to a directory that the app's user may write and "
            "that outlives its processes.",
            id=f"optly_celery.{'E' if always else 'W'}007",
        )
    ]
