"""What annotations may set on the deliver task, and what a worker says of options at its start."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.concurrency import get_implementation, solo

from optly_celery.errors import TransientDeliveryError
from optly_celery.names import DELIVER_TASK
from optly_celery.tasks import deliver
from optly_celery.worker import options


class Refused:
    """Equal to nothing that the task has."""


NOT_TAKEN = {
    "max_retries": 2,
    "default_retry_delay": 1,
    "override_max_retries": 2,
    "autoretry_for": (),
    "dont_autoretry_for": (Exception,),
    "retry_kwargs": {"max_retries": 2},
    "retry_backoff": False,
    "retry_backoff_max": 1,
    "retry_jitter": False,
    "acks_late": False,
    "acks_on_failure_or_timeout": False,
    "acks_on_failure": False,
    "acks_on_timeout": False,
    "reject_on_worker_lost": False,
    "retry_on_worker_lost": True,
    "ignore_result": False,
    "store_errors_even_if_ignored": True,
    "serializer": "pickle",
    "compression": "zlib",
    "delivery_mode": 1,
    "queue": "celery",
    "exchange": "celery",
    "exchange_type": "fanout",
    "routing_key": "celery",
    "immediate": True,
    "mandatory": True,
    "expires": 5,
    "Request": "celery.worker.request:Request",
    "Strategy": "celery.worker.strategy:default",
    "throws": (),
    "typing": False,
    "name": "mine",
    "backend": "rpc://",
    "run": lambda *_: None,
    "retry": lambda *_: None,
    "apply_async": lambda *_: None,
    "start_strategy": lambda *_: None,
    "give_back_if_paused": lambda *_: None,
    "__call__": lambda *_: None,
    "__trace__": lambda *_: None,
    "@run": lambda _: Refused,
    "@__call__": lambda _: Refused,
    "@apply_async": lambda _: Refused,
    "@retry": lambda _: Refused,
}

TAKEN = {
    "rate_limit": "10/s",
    "time_limit": 60,
    "soft_time_limit": 50,
    "priority": 3,
    "track_started": True,
    "send_events": False,
    "trail": False,
    "resultrepr_maxsize": 10,
    "on_failure": lambda *_: None,
    "on_retry": lambda *_: None,
    "on_success": lambda *_: None,
    "before_start": lambda *_: None,
    "after_return": lambda *_: None,
    "@on_failure": lambda _: Refused,
    "team": "growth",
    "_team": "growth",
    "alert_after": 7,
}


class AsObject:
    """An annotation of the kind that Celery's guide shows as a class."""

    def __init__(self, values):
        self._values = values

    def annotate(self, task):
        return self._values if task.name == DELIVER_TASK else None


class AsHand(AsObject):
    """One that sets by itself what it wants."""

    def annotate(self, task):
        if task.name == DELIVER_TASK:
            for name, value in self._values.items():
                setattr(task, name.lstrip("@"), value)


class AsAny(AsObject):
    """One for all tasks."""

    def annotate(self, task):  # noqa: ARG002 - Celery's signature
        return None

    def annotate_any(self):
        return self._values


FORMS = {
    "for all": lambda values: {"*": values},
    "by name": lambda values: {DELIVER_TASK: values},
    "in a list": lambda values: [{"other": {}}, {"*": values}],
    "object": AsObject,
    "object for all": AsAny,
    "by hand": AsHand,
}


def annotated(annotations, **conf):
    """The deliver task of an app with these annotations, and those of the same app without."""
    made = []
    for given in (annotations, None):
        app = Celery("shop", broker="memory://", set_as_current=False)
        app.conf.update(task_annotations=given, **conf)
        made.append(app.tasks[DELIVER_TASK])
    assert made[0].app is not deliver.app
    return made


def own(task, name):
    return vars(type(task)).get(name, "not set")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_a_promise_hangs_on_is_as_it_was_written(name, form):
    """In whichever form it is given, and it is remembered, for the worker to say."""
    bare = name.lstrip("@")
    task, plain = annotated(FORMS[form]({name: NOT_TAKEN[name]}))

    assert own(task, bare) == own(plain, bare)
    assert task.not_taken == (bare,)
    assert task.autoretry_for == (TransientDeliveryError,)
    assert isinstance(task, type(plain).__mro__[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TAKEN)
def test_what_no_promise_hangs_on_is_taken(name, form):
    """Limits, what monitors see, hooks, and attributes of a user's own."""
    bare = name.lstrip("@")
    task, plain = annotated(FORMS[form]({name: TAKEN[name]}))

    assert own(task, bare) != own(plain, bare)
    assert task.not_taken == ()


def test_what_may_be_taken_is_beside_what_may_not():
    """One of a dictionary does not cost the others."""
    task, _ = annotated({"*": {"max_retries": 2, "rate_limit": "1/s", "acks_late": False}})

    assert (task.max_retries, task.acks_late, task.rate_limit) == (None, True, "1/s")
    assert task.not_taken == ("acks_late", "max_retries")


@pytest.mark.parametrize("values", [None, {}, {"max_retries": None}, {"acks_late": True}], ids=str)
def test_what_changes_nothing_is_not_mentioned(values):
    """As an app that says what the task says anyway."""
    task, _ = annotated({"*": values} if values is not None else None)

    assert task.not_taken == ()


def test_tasks_of_the_users_own_are_annotated_as_ever():
    """Only the deliver task is particular."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.task_annotations = {"*": {"max_retries": 2, "acks_late": True}}

    @app.task(name="mine", shared=False)
    def task():
        pass

    assert (task.max_retries, task.acks_late) == (2, True)


@pytest.mark.parametrize(
    "conf",
    [
        {"task_acks_late": False},
        {"task_acks_on_failure_or_timeout": False},
        {"task_acks_on_failure": False},
        {"task_acks_on_timeout": False},
        {"task_reject_on_worker_lost": False},
        {"task_retry_on_worker_lost": True},
        {"task_ignore_result": False},
        {"task_serializer": "pickle"},
    ],
    ids=str,
)
def test_no_setting_for_all_tasks_changes_how_an_event_is_held(conf):
    """What the task says itself goes before ``task_…`` settings of the app."""
    task, plain = annotated(None, **conf)
    app = Celery("plain", broker="memory://", set_as_current=False)
    by_default = app.tasks[DELIVER_TASK]

    for name in (
        "acks_late", "acks_on_failure_or_timeout", "acks_on_failure", "acks_on_timeout",
        "serializer", "reject_on_worker_lost", "retry_on_worker_lost", "ignore_result",
    ):  # fmt: skip
        assert getattr(task, name) == getattr(by_default, name) == getattr(plain, name)


def look(*, pool="solo", autoscale=None, queues="optimizely", **conf):
    """What a worker of such an app looks at as it starts."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    app.finalize()
    app.amqp.queues.select(queues)
    worker = SimpleNamespace(app=app, pool_cls=get_implementation(pool))
    return options.Look(worker, autoscale=autoscale, hostname="celery@here")


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"task_annotations": {"*": {"max_retries": 2}}}, ["max_retries", "optly_max_retries"]),
        (
            {"task_annotations": {DELIVER_TASK: {"retry_backoff": 5}}},
            ["retry_backoff", "optly_retry_backoff"],
        ),
        ({"task_annotations": {"*": {"expires": 5}}}, ["expires", "optly_max_age"]),
        ({"task_annotations": {"*": {"queue": "a"}}}, ["queue", "optly_queue"]),
        ({"task_annotations": {"*": {"acks_late": False}}}, ["acks_late"]),
        ({"worker_enable_remote_control": False}, ["worker_enable_remote_control", "--worker"]),
        ({}, None),
        ({"task_annotations": {"*": {"rate_limit": "1/s"}}}, None),
    ],
    ids=str,
)
def test_an_option_with_a_price_is_a_warning_by_name(caplog, conf, words):
    """With the setting of ours that does it, where there is one; and else there is none."""
    caplog.set_level(logging.WARNING)

    look(**conf)

    said = [r.getMessage() for r in caplog.records if r.name == options.__name__]
    assert len(said) == (words is not None)
    assert all(word in said[0] for word in words or ())


@pytest.mark.parametrize("autoscale", ["3", "4,1", "10,0", (4, 1), [10, 0], (2, 2)])
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_cannot_grow_is_not_told_to(caplog, pool, autoscale):
    """Celery's autoscaler would end the worker at the first load."""
    with pytest.raises(SystemExit) as ended:
        look(pool=pool, autoscale=autoscale)

    assert ended.value.code == 78
    (said,) = caplog.records
    assert "--autoscale" in said.getMessage()
    assert pool.rstrip("s") in said.getMessage()


class Growing(solo.TaskPool):
    """A pool of a user's own."""

    def grow(self, n):
        """Celery's signature."""


@pytest.mark.parametrize("autoscale", ["3", "4,1", "10,0", (4, 1), [10, 0], (2, 2)])
@pytest.mark.parametrize(
    "pool", ["prefork", "processes", "gevent", "eventlet", f"{__name__}:Growing"]
)
def test_a_pool_that_can_grow_may_be_told_to(pool, autoscale):
    """Somebody's own as well."""
    look(pool=pool, autoscale=autoscale)


@pytest.mark.parametrize("autoscale", [None, (), 0, ""])
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_is_not_scaled_need_not_grow(pool, autoscale):
    """As most workers are."""
    look(pool=pool, autoscale=autoscale)


def test_a_worker_of_other_queues_is_left_alone(caplog):
    """It is none of ours, whatever its options are."""
    look(
        pool="threads", autoscale="4,1", queues="other", worker_enable_remote_control=False,
        task_annotations={"*": {"max_retries": 2}},
    )  # fmt: skip

    assert caplog.records == []
