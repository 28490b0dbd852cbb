"""A session of requests whose connections are part of one exchange."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from .connection import Exchange, timed


class Session(requests.Session):
    """One call at a time, over connections that belong to its exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange()
        adapter = _Adapter(self.exchange)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))


class _Adapter(HTTPAdapter):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pools: dict[str | None, Any] = {}
        # No retries below: only the retry policy decides on another attempt.
        super().__init__(pool_connections=2, pool_maxsize=1, max_retries=0)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> Any:
        """As requests', asked once for what goes to one URL: it costs 50 µs."""
        url = request.url if request.method == "POST" else None
        found = self._pools.get(url)
        if found is None:
            found = super().get_connection_with_tls_context(request, *args, **kwargs)
            if url is not None:
                self._pools.clear()
                self._pools[url] = found
        return found

    def close(self) -> None:
        self._pools.clear()
        super().close()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._time(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            self._time(manager)
        return manager

    def _time(self, manager: Any) -> None:
        classes = getattr(manager, "pool_classes_by_scheme", {})  # see `worker.borrowed`
        manager.pool_classes_by_scheme = {
            scheme: timed(pool, self._exchange) for scheme, pool in classes.items()
        }
