"""Dead letters on the admin site: look, replay, purge.

Needs the permission to view dead letters; to see an event, to replay and to delete (purge), one
more each.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from ...celery_app import current_app
from ...dead_letters.letter import PERSONAL, Fate, Filter, event_dict
from ...dead_letters.replay import replay
from ...errors import DeadLetterError, PublishError, SettingsError
from ...event.printable import json_text, printable
from ...runtime.process import runtime_of
from .models import DeadLetter

logger = logging.getLogger(__name__)

_SHOWN = 100
_LIST = "admin:optly_celery_deadletter_changelist"
_HOUR_S = 3600.0
_AGES = {
    "1h": ("failed in the last hour", Filter(newer_than_s=_HOUR_S)),
    "1d": ("failed in the last day", Filter(newer_than_s=24 * _HOUR_S)),
    "over-1d": ("failed more than a day ago", Filter(older_than_s=24 * _HOUR_S)),
    "over-7d": ("failed more than a week ago", Filter(older_than_s=7 * 24 * _HOUR_S)),
}
_ACTIONS = {"replay": "optly_celery.replay_deadletter", "purge": "optly_celery.delete_deadletter"}
_SENTENCES = {
    Fate.REPLAYED: "published again",
    Fate.PURGED: "deleted, undelivered",
    Fate.GONE: "had left the store meanwhile",
    Fate.BUSY: "kept, being in the hands of another replay",
    Fate.NO_EVENT: "kept, being no event that could be published",
}


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """Reads the store of the project's Celery app; there is nothing to add or change."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any, **__: Any) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        view, name = self.admin_site.admin_view, "optly_celery_deadletter_{}".format
        return [
            path("", view(self.changelist_view), name=name("changelist")),
            path("act/", view(require_POST(self.act_view)), name=name("act")),
            path("<str:letter_id>/", view(self.letter_view), name=name("change")),
        ]

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """The newest letters that match the filters. Shows no personal data."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        letters, reasons = [], {}
        try:
            dead = runtime_of(current_app()).dead_letters
            reasons = dead.count_by_reason()
            found = dead.list(_filter(request.GET), newest_first=True)
            letters = [letter.printable() for letter in islice(found, _SHOWN)]
        except (DeadLetterError, SettingsError) as exc:
            messages.error(request, f"The dead letter store cannot be read: {exc}.")
        return self._page(
            request, "Dead letters", "list", letters=letters, reasons=reasons, shown=_SHOWN,
            ages={name: text for name, (text, _) in _AGES.items()}, chosen=request.GET,
            may={action: request.user.has_perm(perm) for action, perm in _ACTIONS.items()},
            **(extra_context or {}),
        )  # fmt: skip

    def letter_view(self, request: Any, letter_id: str) -> Any:
        """One letter; its event and the endpoint's words only with the permission for that."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            letter = runtime_of(current_app()).dead_letters.show(letter_id)
        except (DeadLetterError, SettingsError) as exc:
            messages.error(request, printable(f"{exc}."))
            return HttpResponseRedirect(reverse(_LIST, current_app=self.admin_site.name))
        letter_id = printable(letter_id)  # which a person may have typed
        facts = {k: v for k, v in letter.printable().as_dict().items() if k not in PERSONAL}
        event = answer = None
        if request.user.has_perm("optly_celery.view_deadletter_event"):
            event = json_text(event_dict(letter.event), indent=2, only_ascii=False)
            answer = "\n".join(map(printable, (letter.answer or "").splitlines()))
            # Personal data: who looked is worth a line.
            logger.info("dead letter %s was looked into by user %s", letter_id, request.user.pk)
        return self._page(
            request, f"Dead letter {letter_id}", "one", facts=facts, event=event, answer=answer
        )

    def act_view(self, request: Any) -> Any:
        """Ask, and if the answer has come, replay or purge."""
        action, ids = request.POST.get("action"), request.POST.getlist("id")
        if action not in _ACTIONS or not request.user.has_perm(_ACTIONS[action]):
            raise PermissionDenied
        back = HttpResponseRedirect(reverse(_LIST, current_app=self.admin_site.name))
        if not ids:
            messages.warning(request, "No dead letter was chosen.")
            return back
        if "confirmed" not in request.POST:
            return self._page(request, "Are you sure?", "ask", action=action, ids=ids)
        fates: Counter[Fate] = Counter()
        try:
            runtime = runtime_of(current_app())
            dead = runtime.dead_letters
            publish = runtime.publisher.publish
            fates.update(replay(dead, ids, publish) if action == "replay" else dead.purge(ids))
        except (DeadLetterError, SettingsError) as exc:
            messages.error(request, f"Stopped: {exc}. What is left is still kept.")
        except PublishError as exc:
            text = f"Stopped: an event could not be published ({exc.reason})."
            messages.error(request, f"{text} What is left is still kept.")
        done = ", ".join(f"{count} {fate.value}" for fate, count in fates.items()) or "nothing"
        logger.info("%s of dead letters by user %s: %s", action, request.user.pk, done)
        for fate, count in fates.items():
            messages.info(request, f"{count} dead letter{pluralize(count)} {_SENTENCES[fate]}.")
        return back

    def _page(self, request: Any, title: str, part: str, **context: Any) -> Any:
        context |= {**self.admin_site.each_context(request), "title": title, "part": part}
        context |= {"opts": self.model._meta}  # noqa: SLF001 - its public name in Django's docs
        return TemplateResponse(request, "optly_celery/dead_letters.html", context)


def _filter(query: Any) -> Filter:
    _, ages = _AGES.get(query.get("age"), ("", Filter()))
    status = query.get("status", "")
    number = int(status) if re.fullmatch("[0-9]{3}", status) else None
    return replace(ages, reason=query.get("reason") or None, status=number)
