"""``broker_transport = "optly_celery.consumer.redis_transport:Transport"`` is a public path."""

from ..worker.receive.transport import SentinelTransport, Transport

__all__ = ["SentinelTransport", "Transport"]
