"""``request.optimizely``: the visitor's user context, made when a view first asks for it.

A view that does not ask costs nothing and sets no cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.utils.functional import SimpleLazyObject

from .visitors import Visitor


class OptimizelyMiddleware:
    """Gives each request ``optimizely`` and, for coroutines, ``aoptimizely``.

    ``request.optimizely`` is the SDK's ``OptimizelyUserContext`` of this visitor.
    ``await request.aoptimizely()`` is the same, for async views whose ``user_id`` or
    ``attributes`` function touches the database, which Django forbids in a coroutine.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        visitor = Visitor(request)
        request.optimizely = SimpleLazyObject(lambda: visitor.user)
        request.aoptimizely = sync_to_async(lambda: visitor.user)
        if self._is_async:
            return self._respond(self._get_response(request), visitor)
        return visitor.remember(self._get_response(request))

    async def _respond(self, response: Awaitable[Any], visitor: Visitor) -> Any:
        return visitor.remember(await response)
