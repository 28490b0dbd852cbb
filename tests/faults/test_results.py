"""What workers leave in a result backend: how tasks ended, and nothing of their events."""

from __future__ import annotations

import functools
import json
import re

import pytest
from celery import VERSION

from optly_celery.tasks import deliver
from optly_celery.testing.server import Answer

from ..conftest import celery_app
from ..line import IMPATIENT, IMPATIENT_SETTINGS, Line
from ..support import US_URL, eventually, params_of
from .test_poison import DEADLY, POOLS
from .test_poison import _message as message_of

# All that is in an event and in no summary of it.
PRIVATE = re.compile(rb"jane|secret of|of-event|visitor|snapshots|campaign_activated")

STORING = (
    IMPATIENT.replace('": 4', '": 300')
    + DEADLY
    + """
import os

result_backend = os.environ["OPTLY_BROKER_URL"][:-1] + "1"
result_extended = True


def _before_start(task, task_id, args, kwargs):
    whole = repr((args, kwargs))
    if "odd-unicode" in whole:
        raise UnicodeEncodeError("utf-8", whole, 0, 1, "surrogates of " + whole)
    if "odd-cause" in whole:
        try:
            raise KeyError(whole)
        except KeyError as exc:
            raise RuntimeError(whole) from exc
    if "odd-given-up" in whole:
        from celery.exceptions import MaxRetriesExceededError

        raise MaxRetriesExceededError(whole, task_args=args, task_kwargs=kwargs)


task_annotations = {"optly_celery.deliver": {"before_start": _before_start}}
"""
)
"""Configuration with a result backend, and with faults that quote what they were given."""


ERRORS = "task_store_errors_even_if_ignored = True\n"
CONFIGS = {
    "extended alone": ("", None),
    "errors though ignored": (ERRORS, None),
    "not ignored": ("task_ignore_result = False\n", None),
    "not ignored by annotation": (
        'task_annotations["optly_celery.deliver"]["ignore_result"] = False\n',
        None,
    ),
    "not ignored by the message": ("", False),
    "ignored by the message": (ERRORS, True),
    "all of them": (ERRORS + "task_ignore_result = False\ntask_track_started = True\n", False),
    "all of them, pickled": (
        ERRORS
        + 'task_track_started = True\nresult_serializer = "pickle"\n'
        + 'result_accept_content = ["pickle"]\n',
        False,
    ),
}
"""Configuration, and what the messages' header ``ignore_result`` says; None leaves it alone."""

QUICK = {
    ("all of them", "prefork"),
    ("all of them", "threads"),
    ("errors though ignored", "threads"),
}


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        pytest.param(
            name, pool, id=f"{name}, {pool}",
            marks=() if (name, pool) in QUICK else pytest.mark.slow,
        )
        for name in CONFIGS
        for pool in POOLS
    ],
)  # fmt: skip
def test_no_result_holds_anything_of_an_event(tmp_path, name, pool):
    """However a task ends, whoever sent it, in whatever pool, and whatever is stored of it."""
    text, ignored = CONFIGS[name]
    with Line(tmp_path, config=STORING + text, **IMPATIENT_SETTINGS) as line:
        line.collector.choose = _answer()
        line.work("-c", "1", pool=pool)
        stored = line.broker.client().pubsub()
        stored.psubscribe("celery-task-meta-*")  # also what the next state replaces

        ends = ["SUCCESS", "REFUSED", "RETRY", "odd-unicode", "odd-cause", "odd-given-up"]
        ends += {"prefork": ["slow", "stuck", "deadly"], "gevent": ["stuck"]}.get(pool, [])
        with celery_app(line.broker.url) as app:
            for who in ("ours", "theirs"):
                gone = functools.partial(app.control.revoke, f"REVOKED-{who}", reply=True, limit=1)
                eventually(functools.partial(gone, timeout=2), what="the worker knows")
            for end in ["REVOKED", *ends]:
                _send(line, end, ignored)
                eventually(line.is_empty, what=end)

        wrote = [m["data"] for m in iter(lambda: stored.get_message(timeout=0.5), None)
                 if m["type"] == "pmessage"]  # fmt: skip
        results = line.broker.client()
        results.select(1)
        wrote += [results.get(key) for key in results.keys("celery-task-meta-*")]
        found = [value for value in wrote if PRIVATE.search(value)]
        assert not found
        for end in ["REVOKED", *ends]:
            if end in ("deadly", "stuck"):
                continue  # nothing is stored while a message goes back
            # Celery 5.4 stores no success that only the message wants.
            if (ERRORS in text and end != "SUCCESS") or (ignored is False and VERSION >= (5, 7)):
                for who in ("ours", "theirs"):
                    assert any(f"{end}-{who}".encode() in value for value in wrote), (end, who)


def _answer():
    """Answers by what is in an event; the first attempt of some differs from the next."""
    seen = set()

    def choose(_method, _target, body):
        if b"REFUSED" in body:
            return Answer(400)
        first, key = body not in seen, body
        seen.add(key)
        if b"RETRY" in body and first:
            return Answer(503)
        return Answer(204, {}, 0.45) if first and (b"slow" in body or b"stuck" in body) else None

    return choose


def _send(line, end, ignore_result):
    """One event by our own task, and one of another program."""
    options = {} if ignore_result is None else {"ignore_result": ignore_result}
    limits = {"stuck": {"time_limit": 0.2}, "slow": {"soft_time_limit": 0.2}}.get(end, {})
    args = [US_URL, "POST", _params(end, "ours")]
    deliver.apply_async(args, task_id=f"{end}-ours", **limits, **options)
    client = line.broker.client()
    client.lpush("optimizely", json.dumps(_from_elsewhere(end, limits, options)))


def _from_elsewhere(end, limits, options):
    """As a program in another language may send it: without a summary, with stamps."""
    params = json.dumps(_params(end, "theirs"))
    return message_of(
        [[], {"url": US_URL, "verb": "POST", "params": params}, None],
        id=f"{end}-theirs", timelimit=[limits.get("time_limit"), limits.get("soft_time_limit")],
        stamped_headers=["who"], stamps={"who": [f"jane-{end}"]}, **options,
    )  # fmt: skip


def _params(end, who):
    return params_of(f"jane-{end}@example.com", f"{end}-of-event-{who}")
