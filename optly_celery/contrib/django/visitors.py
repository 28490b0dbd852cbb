"""Who a visitor is to Optimizely.

By default a random number in a cookie of this site, so that nobody learns who it is, and a
visitor who logs in half-way keeps the variation and has the conversion counted. Never the session
key: whoever has that is logged in.
"""

from __future__ import annotations

import re
import uuid
from functools import cached_property
from typing import Any

from django.utils.cache import patch_vary_headers

from .options import Options, client, current_options

_COOKIE = re.compile(r"[0-9a-f]{32}")  # what `Visitor` makes; anything else was put there


def account(request: Any) -> str | None:
    """For ``OPTIMIZELY["user_id"]``: the primary key of who is logged in, else the cookie.

    Decides alike on all devices of an account, but anew at login, and hands your key for the
    account to Optimizely. Needs ``AuthenticationMiddleware``.
    """
    user = request.user
    return str(user.pk) if user.is_authenticated else None


class Visitor:
    """One request's visitor. Looks at the request only when asked for the user context."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._options: Options | None = None
        self._new_cookie: str | None = None

    @cached_property
    def user(self) -> Any:
        """The SDK's user context, the same one for the whole request."""
        self._options = options = current_options()
        given = options.user_id(self._request) if options.user_id is not None else None
        user_id = "" if given is None else str(given)
        if not user_id:
            user_id = self._request.COOKIES.get(options.cookie_name, "")
            if not _COOKIE.fullmatch(user_id):
                user_id = self._new_cookie = uuid.uuid4().hex
        attributes = options.attributes(self._request) if options.attributes else None
        return client.create_user_context(user_id, dict(attributes or {}))

    def remember(self, response: Any) -> Any:
        """The response, with the visitor's cookie if it is new."""
        if self._options is None:
            return response
        # A cache must not show one visitor's variation to the next.
        patch_vary_headers(response, ["Cookie"])
        if self._new_cookie is not None:
            response.set_cookie(
                self._options.cookie_name,
                self._new_cookie,
                max_age=int(self._options.cookie_age),
                domain=self._options.cookie_domain,
                secure=self._request.is_secure(),
                httponly=True,
                samesite="Lax",
            )
        return response
