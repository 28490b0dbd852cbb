"""What a producer has left in the broker."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from .support import Broker


def queued(broker: Broker) -> list[dict[str, Any]]:
    """Params of the events in the broker, oldest first."""
    return [_params(json.loads(m)) for m in broker.client().lrange("optimizely", 0, -1)[::-1]]


def queued_visitors(broker: Broker) -> list[str]:
    """The ids of their visitors, sorted; one that is there twice is there twice."""
    return sorted(v["visitor_id"] for params in queued(broker) for v in params["visitors"])


def _params(message: dict[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(message["body"])
    if "compression" in message["headers"]:
        body = zlib.decompress(body)
    params = json.loads(body)[0][2]
    found: dict[str, Any] = json.loads(params) if isinstance(params, str) else params
    return found
