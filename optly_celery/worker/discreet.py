"""A request that shows nobody what is in it: the least that a worker must have of this package."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from ..names import ENQUEUED_AT_HEADER
from .message import summary, url_of


class DiscreetRequest(Request):  # type: ignore[misc]
    """Celery's own, but for its arguments, of which log, monitors and remote control see a summary.

    ``url`` is where its event goes.
    """

    def __init__(
        self, message: Any, *, headers: Any = None, body: Any = None, decoded: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        payload = body if decoded else message.payload
        headers = message.headers if headers is None else headers
        if ENQUEUED_AT_HEADER not in headers:  # another program's, or one sent by name
            headers = {**headers, "argsrepr": summary(payload), "kwargsrepr": "{}"}
        super().__init__(message, headers=headers, body=body, decoded=decoded, **options)
        self.url = url_of(payload)

    def info(self, safe: bool = True) -> dict[str, Any]:  # noqa: ARG002 - nobody is shown the rest
        """What remote control tells of it."""
        found: dict[str, Any] = super().info(safe=True)
        return found
