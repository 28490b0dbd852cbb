"""The shop as Django over ASGI, with a view of either kind: ``/async/`` and ``/sync/``.

``application`` is Django's own; ``closing`` is the same with a lifespan, as docs/servers.md has it.
"""

from __future__ import annotations

import asyncio
import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

import optly_celery

from . import shop

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of these tests",  # noqa: S106 - signs nothing
    MIDDLEWARE=[],
)


def ready(request):
    return HttpResponse(str(os.getpid()))


def sync_visit(request, visitor):
    shop.visit(visitor)
    return HttpResponse(str(os.getpid()))


async def async_visit(request, visitor):
    shop.visit(visitor)
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("", ready),
    path("sync/<visitor>", sync_visit),
    path("async/<visitor>", async_visit),
]
application = get_asgi_application()


async def closing(scope, receive, send):
    if scope["type"] != "lifespan":
        await application(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(optly_celery.close)
    await send({"type": "lifespan.shutdown.complete"})
