"""What a worker does with its queue and its messages while a host is paused."""

from __future__ import annotations

import logging
import time
from collections import deque

import pytest
from celery import bootsteps
from celery.worker import state as worker_state

from optly_celery import signals
from optly_celery.errors import TransientDeliveryError
from optly_celery.worker.loop import Loop
from optly_celery.worker.pause.parking import PARKED
from optly_celery.worker.pause.policy import Ended, Pauses
from optly_celery.worker.pause.step import Pausing

from ....support import US_URL
from ..doubles import QUEUE, Channel, Consumer, ParkingChannel, a_message, an_app

HOST, OTHER = "logx.optimizely.com", "eu.logx.optimizely.com"
OTHER_URL = f"https://{OTHER}/v1/events"
AWAY = TransientDeliveryError("", reason="http_503", status=503)


class Rig:
    """A worker that consumes the deliver queue, with a clock for its pauses."""

    def __init__(self, channel, *, after=1, url_override=None):
        self.channel, self.now = channel, 1000.0
        self.consumer = Consumer(an_app(), channel=channel)
        self.tasks = self.consumer.task_consumer
        pauses = Pauses(after=after, longest_s=300.0, clock=lambda: self.now, rand=lambda: 1.0)
        self.pausing = Pausing(
            self.consumer, Loop(self.consumer), pauses, queue=QUEUE, url_override=url_override
        )

    @property
    def kinds(self):
        return self.consumer.event_dispatcher.kinds

    @property
    def got(self):
        return [message.headers["id"] for message in self.tasks.received]

    def receives(self, message, url=US_URL, *, is_due=True):
        return self.pausing.receives(message, url, is_due=is_due)

    def fail(self, url=US_URL, task_id="failed"):
        assert self.pausing.admits(task_id, url)
        self.pausing.ended(task_id, url, Ended.FAILED, AWAY)
        self.consumer.turn()

    def answer(self, task_id, url=US_URL):
        self.pausing.ended(task_id, url, Ended.ANSWERED)
        self.consumer.turn()

    def tick(self, after_s=0.0):
        """One tick, at which a look for what to take is due."""
        self.now += after_s
        self.pausing._take_at_s = 0.0
        self.consumer.timer.run()
        self.consumer.turn()

    def look(self):
        """A tick at which the list of parked hosts is read again."""
        self.pausing._look_at_s = 0.0
        self.tick()


@pytest.fixture
def rig():
    """With a broker that cannot park."""
    made = Rig(Channel())
    made.pausing.start()
    made.consumer.turn()
    return made


@pytest.fixture
def parking():
    """With a broker that can."""
    made = Rig(ParkingChannel())
    made.pausing.start()
    made.consumer.turn()
    return made


def test_a_worker_whose_only_host_is_paused_consumes_nothing(rig):
    """What it does not take stays in the broker, where other workers and people see it."""
    assert rig.receives(a_message())

    rig.fail()

    assert rig.tasks.names == []
    assert rig.kinds == ["worker-optimizely-paused"]


def test_it_consumes_again_once_the_host_is_back(rig):
    """Once, and only the deliver queue."""
    rig.fail()
    rig.tick(1.0)
    for n in range(40):
        rig.pausing.admits(f"r-{n}", US_URL)
        rig.answer(f"r-{n}")

    assert rig.tasks.names == [QUEUE]
    assert rig.tasks.consumed == 1
    assert rig.kinds == ["worker-optimizely-paused", "worker-optimizely-resumed"]


def test_while_another_host_is_well_the_queue_is_consumed(rig):
    """Its events must not wait for the other one's outage."""
    assert rig.receives(a_message(url=OTHER_URL), OTHER_URL)
    rig.fail()

    assert rig.tasks.names == [QUEUE]
    assert rig.receives(a_message(url=OTHER_URL), OTHER_URL)


def test_what_comes_for_a_paused_host_is_parked(parking):
    """Out of the way of others, where the queue goes on."""
    parking.receives(a_message(url=OTHER_URL), OTHER_URL)
    parking.fail()

    assert not parking.receives(a_message(task_id="t-2", channel=parking.channel))

    assert parking.channel.settled == [("park", "tag of t-2")]


def test_what_comes_for_a_paused_host_is_given_back_where_nothing_can_be_parked(rig):
    """The broker has no place beside the queue."""
    rig.receives(a_message(url=OTHER_URL), OTHER_URL)
    rig.fail()

    assert not rig.receives(a_message(channel=rig.channel))

    assert rig.channel.words == ["give back"]


def test_what_still_comes_after_the_queue_was_left_is_given_back(parking):
    """It was on its way: in the queue it waits as well as beside it, and in its place."""
    parking.fail()
    assert parking.tasks.names == []

    assert not parking.receives(a_message(channel=parking.channel))

    assert parking.channel.words == ["give back"]


def test_what_the_broker_does_not_park_is_given_back(parking):
    """Its connection may be lost just then; it may have come back at the next call."""
    parking.receives(a_message(url=OTHER_URL), OTHER_URL)
    parking.fail()
    parking.channel.refuses = 1

    assert not parking.receives(a_message(channel=parking.channel))

    assert parking.channel.words == ["give back"]


def test_what_the_broker_does_not_take_back_is_tried_again(rig):
    """Every five seconds; until then it is unacked there."""
    rig.receives(a_message(url=OTHER_URL), OTHER_URL)
    rig.fail()
    rig.pausing.stop()
    rig.consumer.timer.run()
    rig.channel.refuses = 2
    rig.receives(a_message(channel=rig.channel))

    waits = []
    for _ in range(3):
        rig.consumer.turn()
        waits.append(rig.consumer.timer.waits)
        rig.consumer.timer.run()

    assert waits == [[5.0], [5.0], []]
    assert rig.channel.words == ["give back"]


def test_a_message_that_is_not_due_waits_in_the_worker_or_is_parked(rig, parking):
    """A queue that would give it back at once is no place for it."""
    for one in (rig, parking):
        one.receives(a_message(url=OTHER_URL), OTHER_URL)
        assert one.receives(a_message(channel=one.channel), is_due=False)
        one.fail()

    assert rig.receives(a_message(channel=rig.channel), is_due=False)
    assert not parking.receives(a_message(channel=parking.channel), is_due=False)
    assert parking.channel.words == ["park"]


def test_waiting_for_its_time_takes_no_probe(parking):
    """Only what can be posted now finds out how the host is."""
    parking.fail()
    parking.now += 1.0
    parking.receives(a_message(task_id="later"), is_due=False)

    assert parking.pausing.admits("probe", US_URL)


@pytest.mark.parametrize("url", [None, 5, "no url", "http://[", [US_URL]])
def test_what_names_no_host_is_received_and_says_nothing(rig, url):
    """The task keeps it, with a reason."""
    rig.fail()

    assert rig.receives(a_message(), url)
    assert rig.pausing.admits("t", url)
    assert not rig.pausing.stops("t", url)
    rig.pausing.ended("t", url, Ended.FAILED, AWAY)
    assert len(rig.pausing.report()) == 1


def test_where_all_posts_go_elsewhere_that_is_the_host():
    """Its outage is everybody's, whatever host their URLs name."""
    rig = Rig(Channel(), url_override="http://there:81/x")
    rig.pausing.start()

    rig.fail()

    assert not rig.pausing.admits("t", OTHER_URL)
    assert [told["host"] for told in rig.pausing.report()] == ["there:81"]


def test_switched_off_it_touches_nothing():
    """However often a host fails."""
    rig = Rig(Channel(), after=0)
    rig.pausing.start()
    for n in range(9):
        rig.fail(task_id=f"f-{n}")

    assert rig.receives(a_message())
    assert (rig.tasks.names, rig.kinds, rig.pausing.report()) == ([QUEUE], [], [])


def test_a_probe_is_taken_from_the_queue_when_it_is_due(rig):
    """One, as if it had come in by itself, and no other until it has ended."""
    rig.fail()
    rig.channel.waiting.extend(a_message(task_id=f"t-{n}") for n in range(3))
    rig.tasks.on_message = lambda m: rig.receives(m) and rig.tasks.received.append(m)
    rig.tick(0.9)
    assert rig.got == []

    rig.tick(0.1)
    rig.tick()

    assert rig.got == ["t-0"]
    assert set(rig.channel.asked) == {QUEUE}


def test_as_many_are_taken_as_may_be_under_way(rig):
    """After the probe two, then four: the host is not overrun."""
    rig.fail()
    rig.channel.waiting.extend(a_message(task_id=f"t-{n}") for n in range(30))
    rig.tasks.on_message = lambda m: rig.receives(m) and rig.tasks.received.append(m)
    taken = []
    rig.tick(1.0)
    for _ in range(3):
        under_way = rig.got
        taken.append(len(under_way))
        rig.tasks.received.clear()
        for task_id in under_way:
            rig.pausing.ended(task_id, US_URL, Ended.ANSWERED)
        rig.tick()

    assert taken == [1, 2, 4]


def test_what_is_parked_is_older_and_taken_first(parking):
    """Then from the queue, where it was left."""
    parking.fail()
    parked = PARKED % (QUEUE, HOST)
    parking.channel.sources = {
        parked: deque([a_message(task_id="parked")]),
        QUEUE: deque([a_message(task_id="queued")]),
    }
    parking.channel.parked[HOST] = 1
    parking.look()

    for _ in range(2):
        parking.tick(16.0)
        parking.pausing.pauses.forget_permits()

    assert parking.channel.asked[:3] == [parked, parked, QUEUE]
    assert parking.got[:2] == ["parked", "queued"]


def test_while_the_queue_is_consumed_only_what_is_parked_is_taken(parking):
    """What comes from the queue comes by itself."""
    parking.receives(a_message(url=OTHER_URL), OTHER_URL)
    parking.fail()
    parking.receives(a_message(channel=parking.channel))

    parking.tick(1.0)

    assert parking.channel.asked == [PARKED % (QUEUE, HOST)]


def test_after_finding_nothing_it_does_not_ask_at_once(rig):
    """An empty queue is asked twice a second, not with every tick."""
    rig.fail()
    rig.tick(1.0)
    asked = len(rig.channel.asked)

    rig.consumer.timer.run()
    rig.consumer.turn()

    assert (asked, len(rig.channel.asked)) == (1, 1)


def test_messages_that_are_not_due_are_passed_over_within_bounds(rig):
    """Twenty between two ticks: a queue of nothing else must not hold the loop up."""
    rig.fail()
    rig.channel.waiting.extend(a_message(task_id=f"t-{n}") for n in range(50))

    rig.tick(1.0)

    assert len(rig.got) == 20


def test_a_broker_in_trouble_while_taking_ends_nothing(rig):
    """Its connection's trouble is for Celery to see; there will be another look."""

    def broken(*_args, **_options):
        raise ConnectionResetError

    rig.fail()
    rig.channel.basic_get = broken
    rig.tick(1.0)
    del rig.channel.basic_get
    rig.channel.waiting.append(a_message())

    rig.tick()

    assert rig.got == ["t-1"]


def test_ticks_go_on_by_themselves(rig):
    """Four in a second."""
    for _ in range(3):
        assert rig.consumer.timer.waits == [0.25]
        rig.tick()


def test_ticks_end_after_stop(rig):
    """The connection is gone: nothing must touch its channel."""
    rig.fail()
    rig.pausing.stop()
    rig.channel.waiting.append(a_message())

    rig.tick(1.0)

    assert (rig.consumer.timer.entries, rig.got) == ([], [])


def test_a_new_start_has_one_row_of_ticks(rig):
    """One that was still to come from before the stop must not go on beside it."""
    rig.pausing.stop()
    rig.pausing.start()
    rig.tick()

    assert rig.consumer.timer.waits == [0.25]


def test_a_new_connection_stays_paused_and_frees_the_probe(rig):
    """Celery consumes all queues when it connects; nobody will hear how the probe ended."""
    rig.fail()
    rig.now += 1.0
    assert rig.pausing.admits("probe", US_URL)
    rig.pausing.stop()
    rig.tasks.add_queue(rig.consumer.app.amqp.queues[QUEUE])

    rig.pausing.start()

    assert rig.tasks.names == []
    rig.now += 2.0
    assert rig.pausing.admits("next", US_URL)


def test_a_broker_in_trouble_at_the_start_ends_nothing(parking):
    """There will be another look for what is parked."""
    parking.channel.refuses = 1

    parking.pausing.start()

    assert parking.consumer.timer.waits


@pytest.mark.parametrize("cause", ["stopping", "not running", "no consumer", "no loop"])
def test_nothing_is_taken_by_a_worker_that_does_not_run(rig, monkeypatch, cause):
    """Told to stop, closing, or between two connections."""
    rig.fail()
    rig.channel.waiting.append(a_message())
    if cause == "stopping":
        monkeypatch.setattr(worker_state, "should_stop", 0)
    elif cause == "not running":
        rig.consumer.blueprint.state = bootsteps.CLOSE
    elif cause == "no consumer":
        rig.consumer.task_consumer = None
    else:
        rig.tasks.on_message = None

    rig.tick(1.0)

    assert len(rig.channel.waiting) == 1


@pytest.mark.parametrize("not_stopping", [None, False])
def test_a_worker_that_nobody_told_to_stop_takes(rig, monkeypatch, not_stopping):
    """0 is an exit code; None and False are none."""
    monkeypatch.setattr(worker_state, "should_stop", not_stopping)
    rig.fail()
    rig.channel.waiting.append(a_message())

    rig.tick(1.0)

    assert rig.got == ["t-1"]


def cancel(rig):
    """As a person does, by remote control."""
    rig.consumer.app.amqp.queues.deselect(QUEUE)
    rig.tasks.cancel_by_queue(QUEUE)


def test_a_queue_that_a_person_cancelled_is_not_consumed_again(rig):
    """Their word holds, also when the host is back."""
    rig.fail()
    cancel(rig)
    rig.channel.waiting.append(a_message())
    rig.tick(1.0)
    assert rig.got == []
    for n in range(40):
        rig.pausing.admits(f"r-{n}", US_URL)
        rig.answer(f"r-{n}")

    assert (rig.tasks.names, rig.tasks.consumed) == ([], 0)


def test_a_queue_that_a_person_added_is_wanted(rig):
    """Celery before 5.7 forgot to note it."""
    cancel(rig)
    rig.tasks.add_queue(rig.consumer.app.amqp.queues[QUEUE])
    assert QUEUE not in rig.consumer.app.amqp.queues.consume_from

    rig.tick()

    assert QUEUE in rig.consumer.app.amqp.queues.consume_from
    assert rig.tasks.names == [QUEUE]


def test_what_still_comes_from_a_cancelled_queue_is_given_back(parking):
    """Other workers consume it; parked, it would wait for this one's look."""
    parking.receives(a_message())
    cancel(parking)
    parking.fail()

    assert not parking.receives(a_message(channel=parking.channel))

    assert parking.channel.words == ["give back"]


def test_a_report_says_whether_the_worker_will_consume_again(rig):
    """A person's cancel would keep it from that, and they may have forgotten it."""
    rig.fail()
    (before,) = rig.pausing.report()
    cancel(rig)
    (after,) = rig.pausing.report()

    assert (before["state"], before["wanted"], after["wanted"]) == ("paused", True, False)
    assert (before["host"], before["queue"], before["reason"]) == (HOST, QUEUE, "http_503")


def test_what_others_have_parked_pauses_the_host_here(parking):
    """This worker then looks for itself: a probe is due at once."""
    parking.channel.parked[HOST] = 3
    parking.channel.sources[PARKED % (QUEUE, HOST)] = deque([a_message(task_id="parked")])

    parking.look()

    assert parking.pausing.report()[0]["reason"] == "parked"
    assert parking.got == ["parked"]


def test_what_is_parked_for_a_host_that_is_well_goes_back_to_the_queue(parking):
    """Nobody else would bring it back."""
    parking.receives(a_message())
    parking.channel.parked[HOST] = 3

    parking.look()
    parking.tick()

    assert parking.channel.unparked == [HOST]
    assert parking.pausing._parked == {}


def test_a_broker_that_refuses_to_move_what_is_parked_keeps_no_worker_from_its_queue(
    parking, monkeypatch
):
    """A full one refuses, and has room again once what is queued has gone."""
    parking.fail()
    monkeypatch.setattr(parking.pausing, "_look_for_parked", lambda: 1 / 0)

    parking.tick(1.0)
    for n in range(40):
        parking.pausing.admits(f"r-{n}", US_URL)
        parking.answer(f"r-{n}")

    assert parking.tasks.names == [QUEUE]


def test_what_is_parked_stays_while_its_host_is_in_trouble(parking):
    """In the queue it would only be parked again."""
    parking.receives(a_message(url=OTHER_URL), OTHER_URL)
    parking.fail()
    parking.channel.parked[HOST] = 3

    parking.look()

    assert parking.channel.unparked == []


def test_a_worker_whose_queue_was_cancelled_leaves_what_is_parked(parking):
    """It is for those that consume the queue."""
    parking.receives(a_message())
    cancel(parking)
    parking.channel.parked[HOST] = 3

    parking.look()

    assert (parking.channel.unparked, parking.pausing.report()) == ([], [])


def test_a_look_at_what_is_parked_is_not_taken_with_every_tick(parking):
    """Every five seconds: it is a round trip."""
    counted = parking.channel.counted

    for _ in range(4):
        parking.tick()

    assert parking.channel.counted == counted
    assert parking.pausing._look_at_s <= time.monotonic() + 5.0


def test_a_child_of_the_pool_stops_nothing(rig):
    """A prefork child has a copy of what was known when it was made, and nothing waits there."""
    rig.pausing.admits("waiting", US_URL)
    rig.fail()
    assert rig.pausing.stops("waiting", US_URL)

    rig.pausing.pid += 1

    assert not rig.pausing.stops("waiting", US_URL)


def test_an_end_without_a_reason_has_one(rig):
    """A report names one always."""
    rig.pausing.admits("t", US_URL)
    rig.pausing.ended("t", US_URL, Ended.FAILED, KeyError("x"))

    assert rig.pausing.report()[0]["reason"] == "unknown"


def test_without_monitors_a_pause_is_a_pause_too(rig):
    """Events may be switched off; there is no dispatcher before the worker connects."""
    rig.consumer.event_dispatcher = None

    rig.fail()

    assert rig.tasks.names == []


def test_greenlets_take_one_after_the_other(rig):
    """Two would take twice as many as may be under way, while each waits for the broker."""
    depth = []

    def get(_queue, *, no_ack):
        depth.append(no_ack)
        rig.pausing._tick()  # another one comes here meanwhile

    rig.fail()
    rig.channel.basic_get = get

    rig.tick(1.0)

    assert depth == [False]


@pytest.fixture
def listen():
    """Have a receiver called for the length of the test: ``listen(signal, receiver)``."""
    connected = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def test_a_change_is_a_line_a_signal_and_an_event(rig, caplog, listen):
    """A person, a program and a monitor learn the same of it, each in its way."""
    caplog.set_level(logging.WARNING)
    heard = []
    for name in ("paused", "resumed"):
        listen(
            getattr(signals, name),
            lambda host, reason, name=name, **_: heard.append((name, host, reason)),
        )

    rig.fail()
    rig.tick(1.0)
    rig.pausing.admits("probe", US_URL)
    rig.answer("probe")

    assert heard == [("paused", HOST, "http_503"), ("resumed", HOST, "http_503")]
    told = {"host": HOST, "reason": "http_503"}
    assert rig.consumer.event_dispatcher.sent == [
        ("worker-optimizely-paused", told),
        ("worker-optimizely-resumed", told),
    ]
    assert [r.message for r in caplog.records] == [
        f"deliveries to {HOST} paused: http_503",
        f"deliveries to {HOST} resumed: http_503",
    ]


def test_a_receiver_that_raises_is_nobody_else_s_trouble(rig, listen):
    """It is called in the worker's loop, which somebody's error must not end."""

    def broken(**_):
        raise KeyError

    listen(signals.paused, broken)

    rig.fail()

    assert rig.kinds == ["worker-optimizely-paused"]


def test_a_report_names_hosts_in_trouble_alone(rig):
    """In the order of their names, each with its reason, how far it is, and whether consumed."""
    for host in ("b", "a", "well"):
        rig.pausing.admits("e", f"https://{host}/")
    rig.fail("https://b/", "e")
    timeout = TransientDeliveryError("", reason="timeout")
    rig.pausing.ended("e", "https://a/", Ended.FAILED, timeout)
    rig.now += 1.0
    rig.pausing.admits("probe", "https://a/")
    rig.answer("probe", "https://a/")
    rig.consumer.app.amqp.queues.deselect(QUEUE)

    assert rig.pausing.report() == [
        {"host": "a", "reason": "timeout", "state": "resuming", "queue": QUEUE, "wanted": False},
        {"host": "b", "reason": "http_503", "state": "paused", "queue": QUEUE, "wanted": False},
    ]


def test_with_nothing_in_trouble_there_is_nothing_to_report(rig):
    """`status` then says that deliveries flow."""
    rig.pausing.admits("e", US_URL)

    assert rig.pausing.report() == []
