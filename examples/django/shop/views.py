"""One page, and what its buttons do."""

import json
from decimal import Decimal
from urllib.request import urlopen

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from .models import Order

PRICE = Decimal("12.50")
SHIPPING = Decimal("4.90")
FLAG = "free_shipping"


class PaymentRefusedError(Exception):
    """The bank said no."""


@require_GET
def index(request):
    """The page, in the visitor's variation: this is the impression."""
    decision = request.optimizely.decide(FLAG)
    free_from = decision.variables.get("from_eur", 50)
    shipping = Decimal(0) if free_from <= PRICE else SHIPPING
    context = {
        "price": PRICE,
        "shipping": shipping,
        "total": PRICE + shipping,
        "free_from": free_from,
        "variation": decision.variation_key,
        "flag": FLAG,
        "visitor": request.optimizely.user_id,
        "results": results(),
    }
    return render(request, "shop/index.html", context)


@require_POST
def buy(request):
    """Buy in one transaction, which the conversion is a part of."""
    visitor = request.optimizely
    try:
        with transaction.atomic():
            order = Order.objects.create(visitor=visitor.user_id, price=PRICE)
            # Revenue is in cents, as Optimizely counts; a Decimal is sent as a number.
            visitor.track_event("purchase", {"revenue": int(PRICE * 100), "value": order.price})
            if "refused" in request.POST:
                raise PaymentRefusedError
    except PaymentRefusedError:
        messages.error(request, "The card was refused: no order, and nothing for Optimizely.")
    else:
        messages.success(request, "Thank you! The purchase is on its way to Optimizely.")
    return redirect("shop")


@require_POST
def another(_request):
    """Become another visitor, who may be shown the other variation."""
    response = redirect("shop")
    response.delete_cookie("optimizely_visitor")
    return response


@require_GET
def arrived(_request):
    """What the stand-in for Optimizely has got, for the page to keep up to date."""
    return JsonResponse(results() or {})


def results():
    """What the stand-in at COLLECTOR_URL says; None where there is none, or it is away."""
    if not settings.COLLECTOR_URL:
        return None
    try:
        with urlopen(settings.COLLECTOR_URL, timeout=2) as answer:  # noqa: S310 - our operator's
            told = json.load(answer)
    except (OSError, ValueError):
        return None
    return {**told, "variations": told["flags"].get(FLAG, {})}
