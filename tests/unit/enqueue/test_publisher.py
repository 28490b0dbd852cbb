"""An event's way into a broker: what is put there, where, and over which connection."""

from __future__ import annotations

import json

import pytest
from celery import Celery, signals
from kombu import Exchange, Queue

from optly_celery.enqueue.publisher import Publisher
from optly_celery.errors import PublishError
from optly_celery.event.event import Event

from ...support import US_URL, params_of

PARAMS = {**params_of("ann", "u-1"), "big": 10**30, "tiny": 1e-300, "text": "ü\ud83d"}


@pytest.fixture
def app():
    """An app on kombu's broker in memory, whose queues begin empty."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(
        broker_transport_options={"polling_interval": 0.001}, task_send_sent_event=False
    )
    yield app
    with app.connection_for_read() as connection:
        connection.default_channel.queues.clear()
        connection.default_channel.state.clear()
    app.close()


def test_the_message_is_json_text_that_any_consumer_reads(app):
    """Protocol 2: args, kwargs, embed, in the body; nothing of it in headers or properties."""
    event = Event.of(US_URL, PARAMS, "POST", {"X-Who": "ann"})

    _publisher(app).publish(event)

    message = _take(app)
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert json.loads(message.body)[:2] == [[US_URL, "POST", PARAMS], {"headers": {"X-Who": "ann"}}]
    assert message.headers["task"] == "optly_celery.deliver"
    assert message.headers["argsrepr"] == event.summary
    assert "ann" not in json.dumps([message.headers, message.properties])


def test_each_message_has_an_id_of_its_own(app):
    """Also the same event dispatched twice: it may have happened twice."""
    event = Event.of(US_URL, params_of())
    publisher = _publisher(app)

    publisher.publish(event)
    publisher.publish(event)

    assert _take(app).headers["id"] != _take(app).headers["id"]


@pytest.mark.parametrize("signal", ["before_task_publish", "after_task_publish", "task_sent"])
def test_celerys_signals_are_sent_with_what_celery_promises(app, signal):
    """Tracing and bookkeeping rely on them; what is published is the same with and without."""
    heard = []

    def hear(**facts):
        heard.append(facts)

    publisher = _publisher(app)
    publisher.publish(Event.of(US_URL, PARAMS))
    getattr(signals, signal).connect(hear)
    try:
        publisher.publish(Event.of(US_URL, PARAMS))
    finally:
        getattr(signals, signal).disconnect(hear)

    (facts,) = heard
    args = facts["args"] if signal == "task_sent" else facts["body"][0]
    assert facts["sender"] == "optly_celery.deliver"
    assert args == [US_URL, "POST", PARAMS]
    first, second = _take(app), _take(app)
    assert first.body == second.body
    assert first.content_type == second.content_type


def test_a_receiver_that_fails_costs_no_event(app):
    """Celery logs it and goes on."""

    def fail(**_):
        raise RuntimeError

    signals.before_task_publish.connect(fail)
    try:
        _publisher(app).publish(Event.of(US_URL, params_of()))
    finally:
        signals.before_task_publish.disconnect(fail)

    assert _take(app)


def test_a_header_added_by_a_receiver_is_sent(app):
    """How tracing hands its context to the worker."""

    def trace(headers, **_):
        headers["traceparent"] = "00-1-2-01"

    signals.before_task_publish.connect(trace)
    try:
        _publisher(app).publish(Event.of(US_URL, params_of()))
    finally:
        signals.before_task_publish.disconnect(trace)

    assert _take(app).headers["traceparent"] == "00-1-2-01"


def test_publishing_does_not_make_a_worker_of_the_app_consume_the_queue(app):
    """A web app's own worker consumes what it did before."""
    before = set(app.amqp.queues)

    _publisher(app).publish(Event.of(US_URL, params_of()))

    assert set(app.amqp.queues) == set(app.amqp.queues.consume_from) == before


def test_a_queue_that_the_app_declares_is_used_as_declared(app):
    """With its exchange and routing key, as the user's ``task_queues`` say."""
    queue = Queue("optimizely", Exchange("shop", type="topic"), routing_key="shop.events")
    app.conf.task_queues = [queue]
    publisher = _publisher(app)

    publisher.publish(Event.of(US_URL, params_of()))

    delivery_info = _take(app).delivery_info
    assert (delivery_info["exchange"], delivery_info["routing_key"]) == ("shop", "shop.events")


def test_compression_is_the_apps_choice(app):
    """``task_compression`` holds for every message of the app."""
    app.conf.task_compression = "zlib"
    event = Event.of(US_URL, PARAMS)

    _publisher(app).publish(event)

    message = _take(app)
    assert message.headers["compression"] == "application/x-gzip"
    assert message.payload[0][2] == PARAMS


@pytest.mark.parametrize(("size", "compressed"), [(4095, False), (4096, True)])
def test_a_body_is_compressed_from_4096_bytes_on(app, size, compressed):
    """A single event stays text that a person can read in the broker; a batch gets small."""
    room = size - len(Event.of(US_URL, params_of(pad="")).message_body)
    event = Event.of(US_URL, params_of(pad="x" * room))

    _publisher(app).publish(event)

    message = _take(app)
    assert ("compression" in message.headers) is compressed
    assert message.payload[0][2] == event.params


def test_one_producer_serves_publishes_that_follow_each_other(app):
    """A connection for each would cost more than the event."""
    publisher = _publisher(app)
    with publisher.producer() as first:
        pass
    publisher.publish(Event.of(US_URL, params_of()))
    with publisher.producer() as second:
        with publisher.producer() as other:
            assert other is not second

        assert second is first


def test_one_client_serves_all_publishes_of_a_producer(broker):
    """kombu would make one for each, which is a third of what a publish costs."""
    shop = Celery("shop", broker=broker.url, set_as_current=False)
    with _publisher(shop).producer() as producer:
        channel = producer.channel

        assert channel._create_client() is channel._create_client()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_connecting_and_waiting_together_stay_within_the_limit(broker, scheme):
    """A broker that accepts late and then hangs holds a request up for one timeout, not two."""
    url = broker.url if scheme == "redis" else "amqp://127.0.0.1//"
    shop = Celery("shop", broker=url, set_as_current=False)
    with _publisher(shop).producer() as producer:
        waits = [producer.connection.connect_timeout] * 2  # what py-amqp has: for each step
        if scheme == "redis":
            options = producer.channel.client.connection_pool.connection_kwargs
            waits = [options["socket_connect_timeout"], options["socket_timeout"]]

    assert all(wait > 0 for wait in waits)
    assert sum(waits) <= 0.5


def test_a_producer_that_failed_is_not_used_again(app):
    """Half of an answer may be stuck in its connection."""
    publisher = _publisher(app)
    with publisher.producer() as failed:
        assert failed.channel
    with pytest.raises(KeyError), publisher.producer() as same:
        raise KeyError

    assert same is failed
    assert not failed.connection.connected
    with publisher.producer() as next_one:
        assert next_one is not failed


def test_closing_releases_connections_and_a_later_publish_opens_new_ones(app):
    """What a shutdown or a fork leaves behind does not matter."""
    publisher = _publisher(app)
    publisher.publish(Event.of(US_URL, params_of()))
    with publisher.producer() as idle:
        assert idle.connection.connected
    publisher.close()
    assert not idle.connection.connected

    publisher.publish(Event.of(US_URL, params_of()))

    assert _take(app)
    assert _take(app)


def test_an_error_says_what_failed_without_quoting_anything():
    """What kombu raises may quote the URL with its password, or the message."""
    app = Celery(broker="nonesuch://:hunter2@broker/", set_as_current=False)

    with pytest.raises(PublishError, match="project 111001, 1 event,") as failure:
        _publisher(app).publish(Event.of(US_URL, params_of("ann")))

    assert failure.value.reason == "broker_error"
    assert "hunter2" not in str(failure.value)
    assert "ann" not in str(failure.value)
    assert failure.value.__suppress_context__


def _publisher(app):
    return Publisher(app, queue="optimizely", timeout_s=0.5)


def _take(app):
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("optimizely", no_ack=True)
        assert message is not None
        return message
