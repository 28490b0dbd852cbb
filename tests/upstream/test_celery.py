"""Celery but its `Request`: its consumer, its tasks, its state, what it tells monitors."""

from __future__ import annotations

import pytest
from celery.events import EventDispatcher
from celery.worker.consumer import Consumer

from .borrowed import found, rows, says, takes

SEEN = "Celery 5.4.0, 5.5.3, 5.6.3, 5.7.0"
STATE, CONSUMER = "celery._state", "celery.worker.consumer.consumer:Consumer"
HANDLE = f"{CONSUMER}.create_task_handler"
DISPATCHER = "celery.events.dispatcher:EventDispatcher"
BACKEND = "celery.backends.base:Backend"


def _flush_keeps_what_comes_meanwhile() -> None:
    sent = []

    class Late(EventDispatcher):
        def _publish(self, events, *_args, **_kwargs):
            sent.extend(events)
            if len(sent) == 1:
                self._group_buffer["task"].append("late")

    late = Late.__new__(Late)
    late.__init__(None, enabled=False)
    late._group_buffer["task"].append("early")
    late.flush()
    assert sent + late._group_buffer["task"] == ["early", "late"]


def _stores_through_one_door() -> None:
    takes(f"{BACKEND}.store_result", "task_id", "result", "state", "traceback", "request")()
    for mark in ("started", "done", "failure", "retry", "revoked"):
        says(f"{BACKEND}.mark_as_{mark}", "self.store_result(")()
    # What `shown_request` puts others in place of.
    says(f"{BACKEND}._get_result_meta", "getattr(request, 'args'", "getattr(request, 'kwargs'",
         "getattr(request, 'stamps'")()  # fmt: skip


ROWS = [
    *rows(
        STATE, where="celery_app.py", seen=SEEN,
        gone="celery.current_app, and have threads that made no app be told to call set_default()",
        names={
            "_apps": ("all apps of the process", lambda: iter(found(f"{STATE}:_apps"))),
            "get_current_app": "the current app itself, no proxy",
        },
    ),
    *rows(
        "celery:Celery", where="celery_app.py", seen=SEEN,
        gone="take every app for one that is meant; two of them need set_default()",
        names={"set_as_current": ("whether an app is meant", takes("celery:Celery",
                                                                   "set_as_current"))},
    ),
    *rows(
        "celery.loaders.app:AppLoader", where="celery_app.py", seen=SEEN,
        gone="app.config_from_object with a dictionary, read when the app is made",
        names={"": "the standalone app reads its settings when first used",
               "read_configuration": ("called once, on first use", takes(
                   "celery.loaders.app:AppLoader.read_configuration", "env")),
               "import_from_cwd": "as `celery -A` imports"},
    ),
    *rows(
        "celery.local:Proxy", where="runtime/process.py", seen=SEEN,
        gone="one runtime for the proxy and one for the app: harmless, but counted apart",
        names={"_get_current_object": "an app behind `celery.current_app`"},
    ),
    *rows(
        "celery.app.utils", where="cli/chosen_app.py", seen=SEEN,
        gone="import the module and look for app and celery in it",
        names={"find_app": ("as `celery -A` finds it", takes("celery.app.utils:find_app", "app"))},
    ),
    *rows(
        "celery.bin.base", where="cli/__init__.py", seen=SEEN,
        gone="leave the decorator out: a project's own options for all commands are refused then",
        names={"handle_preload_options": "options that a project adds to all commands"},
    ),
    *rows(
        "celery.utils.dispatch", where="signals.py", seen=SEEN,
        gone="copy the 40 lines that connect and send_robust need",
        names={"Signal": ("our signals are Celery's", takes("celery.utils.dispatch:Signal",
                                                            "providing_args", "name"))},
    ),
    *rows(
        "celery.utils.nodenames", where="cli/status.py", seen=SEEN,
        gone="write name@host by hand; %h and %n are then not understood",
        names={"default_nodename": "--worker", "host_format": "--worker with %h"},
    ),
    *rows(
        "celery.utils.time", where="worker/readable.py", seen=SEEN,
        gone="convert a message's times as celery.worker.strategy does now: it deletes what "
        "overflows",
        names={"maybe_iso8601": "reads an eta", "maybe_make_aware": "as above",
               "timezone": "the system's"},
    ),
    *rows(
        "kombu.asynchronous.timer", where="worker/readable.py", seen=SEEN,
        gone="as celery.utils.time",
        names={"to_timestamp": ("as the strategy does", says("celery.worker.strategy:default",
                                                             "to_timestamp("))},
    ),
    *rows(
        "celery.utils.time", where="worker/message.py", seen=SEEN,
        gone="datetime.fromisoformat, and UTC where it names no zone",
        names={"maybe_iso8601": "when a retry is due", "maybe_make_aware": "the same"},
    ),
    *rows(
        "celery.utils", where="enqueue/publisher.py", seen=SEEN,
        gone="str(uuid.uuid4())", names={"uuid": "ids of tasks"},
    ),
    *rows(
        "celery.app.amqp:AMQP", where="enqueue/publisher.py", seen=SEEN,
        gone="app.send_task, which is slower: it writes the body once more",
        names={
            "as_task_v2": ("a message", takes("celery.app.amqp:AMQP.as_task_v2", "task_id",
                           "argsrepr", "kwargsrepr", "ignore_result", "create_sent_event")),
            "send_task_message": "publishes it with the app's routes and signals",
        },
    ),
    *rows(
        "celery.app.task:Task", where="worker/task.py", seen=SEEN,
        gone="take the consumer in Pausing, a bootstep, and wrap consumer.strategies there",
        names={
            "start_strategy": ("called on each connection",
                               says(f"{CONSUMER}.update_strategies", "start_strategy(self.app")),
            "Request": ("the class of its requests",
                        says("celery.worker.strategy:default", "task.Request")),
        },
    ),
    *rows(
        "celery.app.task:Task", where="worker/task.py", seen=SEEN,
        gone="see what `autoretry_for` and `delay` call now: the policy's wait, the time limit of "
        "publishing and the summary depend on it",
        names={
            "retry": ("autoretry_for calls it", says("celery.app.autoretry", "task.retry(")),
            "apply_async": ("retry and delay end there", says("celery.app.task:Task.delay",
                                                              "self.apply_async(")),
        },
    ),
    *rows(
        "celery.app.task:Task", where="worker/task.py", seen=SEEN,
        gone="see where the tracer and `Request` take the backend from now: results hold payloads",
        names={
            "backend": ("all results of a task go there",
                        says("celery.app.trace:TraceInfo.handle_failure",
                             "task.backend.mark_as_failure(")),
        },
    ),
    *rows(
        BACKEND, where="worker/results.py", seen=SEEN,
        gone="override what stores a result now, and give it a request without the payload",
        names={
            "store_result": ("every state is stored by it", _stores_through_one_door),
            "__reduce__": ("a result is pickled with its backend's class",
                           says(f"{BACKEND}.__reduce__", "(self.__class__, args, kwargs)")),
        },
    ),
    *rows(
        "celery.app.task:Task", where="worker/options.py", seen=SEEN,
        gone="see where annotations are applied now: one such as max_retries ends events early",
        names={"annotate": ("applies task_annotations",
                            says("celery.app.task:Task.bind", "cls.annotate()"))},
    ),
    *rows(
        "celery.concurrency", where="worker/options.py", seen=SEEN,
        gone="refuse --autoscale with the pools of threads and solo by their names",
        names={"prefork": ("it gets its methods when it starts",
                           says("celery.concurrency.prefork:TaskPool.on_start", "self.grow"))},
    ),
    *rows(
        "kombu.transport.virtual.base:QoS", where="worker/receive/receipt.py", seen="Celery 5.7.0",
        since="celery 5.6", gone="see how Celery does without prefetch now, and take as many",
        names={"can_consume": ("set anew, where nothing is to be prefetched",
                               says("celery.worker.consumer.tasks:Tasks.start",
                                    "channel_qos.can_consume = "))},
    ),
    *rows(
        "celery.app.task", where="worker/readable.py", seen=SEEN,
        gone="name its attributes by hand: a header must not stand for one of them",
        names={"Context": ("a task's request", says("celery.app.trace:build_tracer", "Context("))},
    ),
    *rows(
        CONSUMER, where="worker/unreadable.py", seen=SEEN,
        gone="see what create_task_handler calls for messages that it cannot read, and keep them "
        "there: Celery deletes them",
        names={
            "create_task_handler": ("set on the object", says(
                "celery.worker.loops:asynloop", "obj.create_task_handler()")),
            "on_decode_error": ("set on the object", says(HANDLE, "self.on_decode_error(")),
            "on_invalid_task": ("set on the object", says(HANDLE, "self.on_invalid_task")),
            "on_unknown_message": ("set on the object", says(HANDLE, "self.on_unknown_message")),
            "on_unknown_task": ("set on the object", says(HANDLE, "self.on_unknown_task")),
            "connection_errors": "a lost connection",
        },
    ),
    *rows(
        CONSUMER, where="worker/loop.py", seen=SEEN,
        gone="find how the worker's own loop is asked to call back: from a pool's thread the "
        "timer must not be touched",
        names={
            "call_soon": ("in the worker's own loop", takes(f"{CONSUMER}.call_soon", "p")),
            "pool": "whether it is green", "timer": "calls later",
            "hub": "None in a pool without one",
        },
    ),
    *rows(
        CONSUMER, where="worker/task.py", seen=SEEN,
        gone="hand the request to what create_task_handler gives it to now",
        names={"on_task_request": ("runs one that was put off", says(
            "celery.worker.strategy:default", "consumer.on_task_request"))},
    ),
    *rows(
        CONSUMER, where="worker/pause/step.py", seen=SEEN,
        gone="without it a worker cannot pause: set optly_pause_after to 0, and mend",
        names={"blueprint": "whether it runs", "timer": "calls later"},
    ),
    *rows(
        "celery.worker.consumer", where="worker/pause/step.py", seen=SEEN,
        gone="without it a worker cannot pause: set optly_pause_after to 0, and mend",
        names={
            "Tasks.start": ("the queues", says("celery.worker.consumer:Tasks.start",
                                               "c.task_consumer = ")),
            "Events.start": ("monitors", says("celery.worker.consumer:Events.start",
                                              "c.event_dispatcher = ")),
        },
    ),
    *rows(
        "celery.worker.state", where="worker/pause/step.py", seen=SEEN,
        gone="let the ticks go on in a worker that is stopping: what they take is given back",
        names={"should_stop": "a person has told the worker to stop"},
    ),
    *rows(
        "celery.apps.worker", where="worker/told_to_end.py", seen=SEEN,
        gone="see how a cold shutdown is installed: it must not wait for threads in a log line",
        names={"_shutdown_handler": ("handlers by name", says(
            "celery.apps.worker:_shutdown_handler", "__name__ = str(f'worker_{how}')"))},
    ),
    *rows(
        "celery.worker", seen=SEEN,
        where="worker/pause/step.py worker/suspects.py worker/told_to_end.py worker/parts.py",
        gone="see the rows of its names",
        names={"state": "what the worker has in its hands, and whether it is stopping"},
    ),
    *rows(
        "celery.worker.control", where="worker/task.py", seen=SEEN,
        gone="see how commands are registered; `status` then shows no pauses",
        names={"inspect_command": "`status` asks workers for their pauses"},
    ),
    *rows(
        CONSUMER, where="worker/tuning/eta_limit.py", seen=SEEN,
        gone="leave EtaLimit out, and set worker_eta_task_limit no more",
        names={"qos": ("set anew", says("celery.worker.strategy:default",
                                        "consumer.qos.increment_eventually")),
               "initial_prefetch_count": "what was asked for at first"},
    ),
    *rows(
        "celery.concurrency.thread", where="worker/tuning/one_cpu.py", seen=SEEN,
        gone="leave OneCpu out", names={"TaskPool": "whether the pool is one of threads"},
    ),
    *rows(
        DISPATCHER, where="worker/tuning/monitoring.py", seen=SEEN,
        gone="leave Monitoring out: each event goes by itself, at a tenth of the CPU",
        names={"buffer_group": ("what is gathered", says(f"{DISPATCHER}.send", "buffer_group")),
               "buffer_limit": ("none", says(f"{DISPATCHER}.send", "self.buffer_limit")),
               "on_send_buffered": ("nobody", says(f"{DISPATCHER}.send", "on_send_buffered"))},
    ),
    *rows(
        DISPATCHER, where="worker/tuning/monitoring.py", seen="Celery 5.7.0", since="celery 5.7",
        gone="use worker/older.py's flush for every version, and report it (celery/celery#10434)",
        names={"flush": ("keeps what comes meanwhile", _flush_keeps_what_comes_meanwhile)},
    ),
    *rows(
        DISPATCHER, where="worker/older.py", seen=SEEN,
        gone="only for Celery before 5.7, whose last versions have them",
        names={"_group_buffer": "what is gathered", "_publish": (
            "sends it", takes(f"{DISPATCHER}._publish", "event", "producer", "routing_key"))},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_as_it_was(row):
    """Else its row says what to do."""
    row.check()


def test_a_handler_looks_for_what_we_set_on_the_object():
    """`Guard` replaces methods on the consumer object, before the handlers are made."""
    assert not hasattr(Consumer, "__slots__")
