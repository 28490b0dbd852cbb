"""The views of the tests' Django site."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import path

from .django_site import FLAG


def decide(request):
    user = request.optimizely
    return JsonResponse({"user_id": user.user_id, "variation": user.decide(FLAG).variation_key})


async def adecide(request):
    user = await request.aoptimizely()
    return JsonResponse({"user_id": user.user_id, "variation": user.decide(FLAG).variation_key})


def plain(request):
    return HttpResponse("no experiment here")


urlpatterns = [
    path("decide/", decide),
    path("adecide/", adecide),
    path("plain/", plain),
    path("admin/", admin.site.urls),
]
