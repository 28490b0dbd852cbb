"""``broker_transport = "optly_celery.consumer.redis_transport:Transport"`` is a public path."""

from ..worker.receive.transport import Channel, QoS, SentinelChannel, SentinelTransport, Transport

__all__ = ["Channel", "QoS", "SentinelChannel", "SentinelTransport", "Transport"]
