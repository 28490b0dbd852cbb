"""A shop with one product, one experiment and one conversion."""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from optly_celery.contrib.flask import Optimizely

PRICE_CENTS = 1250
SHIPPING_CENTS = 490
FLAG = "free_shipping"

HERE = Path(__file__).parent
COOKIE = "visitor"
A_YEAR_S = 365 * 86_400


def visitor_id() -> str:
    """The id in the visitor's cookie; one of its own for a visitor who has none yet."""
    if "visitor" not in g:
        g.visitor = request.cookies.get(COOKIE) or uuid.uuid4().hex
    return str(g.visitor)


def attributes() -> dict[str, str]:
    """What is known of the visitor, as far as the datafile has an attribute for it."""
    return {"language": request.accept_languages.best or "unknown"}


optimizely = Optimizely(user_id=visitor_id, attributes=attributes)
shop = Blueprint("shop", __name__)


def create_app(**config: Any) -> Flask:
    """The shop, configured by the environment; ``config`` goes over that.

    There is no CELERY here, so events go through the package's own Celery app, which reads
    OPTLY_BROKER_URL and every other OPTLY_ setting from the environment. An app with tasks of its
    own has ``app.config["CELERY"]`` or ``app.extensions["celery"]``, and that counts instead.
    """
    app = Flask(__name__)
    app.config["COLLECTOR_URL"] = os.environ.get("COLLECTOR_URL")
    app.config["OPTIMIZELY"] = optimizely_config()
    app.config.update(config)
    optimizely.init_app(app)
    app.register_blueprint(shop)
    return app


def optimizely_config() -> dict[str, str]:
    """A project of yours by OPTIMIZELY_SDK_KEY, or a datafile, by default the one beside this."""
    if sdk_key := os.environ.get("OPTIMIZELY_SDK_KEY"):
        return {"sdk_key": sdk_key}
    path = os.environ.get("OPTIMIZELY_DATAFILE")
    return {"datafile": Path(path or HERE / "datafile.json").read_text("utf-8")}


@shop.get("/")
def show() -> str:
    """The page, in the visitor's variation: this is the impression."""
    decision = optimizely.user.decide(FLAG)
    free_from = decision.variables.get("from_eur", 50) * 100
    return render_template(
        "shop.html",
        price=PRICE_CENTS,
        shipping=0 if free_from <= PRICE_CENTS else SHIPPING_CENTS,
        free_from=free_from,
        variation=decision.variation_key,
        flag=FLAG,
        visitor=visitor_id(),
        bought="bought" in request.args,
        results=results(),
    )


@shop.post("/buy")
def buy() -> Response:
    """The conversion. Its revenue is in cents, as Optimizely counts."""
    optimizely.user.track_event("purchase", {"revenue": PRICE_CENTS, "sku": "night-shift-250"})
    return redirect(url_for("shop.show", bought=1), code=303)


@shop.post("/another")
def another() -> Response:
    """Become another visitor, who may be shown the other variation."""
    g.visitor = uuid.uuid4().hex
    return redirect(url_for("shop.show"), code=303)


@shop.get("/arrived")
def arrived() -> dict[str, Any]:
    """What the stand-in for Optimizely has got, for the page to keep up to date."""
    return results() or {}


@shop.after_request
def remember(response: Response) -> Response:
    """Give the visitor the cookie by which the next request knows them."""
    if "visitor" in g and g.visitor != request.cookies.get(COOKIE):
        response.set_cookie(COOKIE, g.visitor, max_age=A_YEAR_S, httponly=True, samesite="Lax")
    return response


@shop.app_template_filter()
def euros(cents: int) -> str:
    """``€12.50``."""
    return f"€{cents / 100:.2f}"


def results() -> dict[str, Any] | None:
    """What the collector at COLLECTOR_URL says; None where there is none, or it is away."""
    url = current_app.config["COLLECTOR_URL"]
    if not url:
        return None
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - from our operator
            told: dict[str, Any] = json.load(answer)
    except (OSError, ValueError):
        return None
    return {**told, "variations": told["flags"].get(FLAG, {})}
