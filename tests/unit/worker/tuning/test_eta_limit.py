"""How many messages a worker holds while others wait for their time."""

from kombu.common import QoS

from optly_celery.worker.tuning.eta_limit import LimitedQoS


def test_the_limit_is_kept_and_left_as_it_was_entered():
    """What was not granted at the limit is not taken back afterwards."""
    qos = LimitedQoS(lambda **_: None, 4, 10)
    held = [qos.increment_eventually() for _ in range(20)]
    assert held[-1] == max(held) == 10
    for _ in range(20):
        qos.decrement_eventually()
    assert qos.value == 4


def test_celerys_own_limit_does_not_recover():
    """What `LimitedQoS` is for. When this fails, kombu does it itself: delete the module."""
    try:
        qos = QoS(lambda **_: None, 4, max_prefetch=10)
    except TypeError:  # before kombu 5.6 there is no limit
        return
    for _ in range(10):
        qos.increment_eventually()
    for _ in range(10):
        qos.decrement_eventually()
    assert qos.value == 1


def test_a_limit_below_the_prefetch_limit_is_that():
    """A limit set too low never leaves a worker with less than its own prefetch."""
    qos = LimitedQoS(lambda **_: None, 128, 10)
    assert qos.increment_eventually() == 128


def test_a_worker_may_always_hold_one():
    """More is taken back than was granted, as Celery does at times: it goes on receiving."""
    qos = LimitedQoS(lambda **_: None, 4, 10)
    assert qos.decrement_eventually(9) == 1
    assert qos.increment_eventually() == 2


def test_no_prefetch_limit_stays_none():
    """0 is Celery's word for no limit; counted upwards it would become a very small one."""
    qos = LimitedQoS(lambda **_: None, 0, 10)
    assert qos.increment_eventually() == qos.decrement_eventually() == 0
