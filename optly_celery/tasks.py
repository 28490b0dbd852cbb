"""The deliver task. Found by ``autodiscover_tasks`` and by ``include``.

``optly_celery.deliver(url, verb, params, headers=None)`` on the queue ``optimizely``, plain JSON,
is a public wire format: any Celery message protocol 2 producer may enqueue it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_init

from .deliver.delivery import Attempt, Outcome
from .deliver.delivery import deliver as attempt_delivery
from .errors import (
    DeadLetterError,
    NotAnEventError,
    PermanentDeliveryError,
    SettingsError,
    TransientDeliveryError,
)
from .event.event import Event
from .names import (
    DELIVER_TASK,
    ENQUEUED_AT_HEADER,
    PARTS_HEADER,
    RECEIVED_AT_HEADER,
    REFUSED_HEADER,
)
from .worker import start
from .worker.ending import interruption
from .worker.request import GiveBack
from .worker.task import DeliverTask
from .worker.tuning.eta_limit import EtaLimit
from .worker.tuning.monitoring import Monitoring
from .worker.tuning.one_cpu import OneCpu
from .worker.tuning.tracebacks import share_copies

logger = logging.getLogger(__name__)


@shared_task(  # type: ignore[untyped-decorator, unused-ignore]
    bind=True,
    base=DeliverTask,
    name=DELIVER_TASK,
    autoretry_for=(TransientDeliveryError,),
    throws=(PermanentDeliveryError,),  # expected: logged in a line, without a traceback
    # The settings of the app decide, per call: see DeliverTask.retry. These are their defaults.
    retry_backoff=1,
    retry_backoff_max=300,
    retry_jitter=True,
    max_retries=None,  # RetryPolicy ends it, with a dead letter instead of an exception
    acks_late=True,
    reject_on_worker_lost=True,
    acks_on_failure_or_timeout=True,  # when kept as a dead letter: see DeliverRequest
    acks_on_failure=True,
    acks_on_timeout=True,
    retry_on_worker_lost=False,  # Celery's retry knows no headers of ours, and not its end
    ignore_result=True,
    serializer="json",
)
def deliver(
    self: DeliverTask,
    url: str = "",
    verb: str = "POST",
    params: dict[str, Any] | str | None = None,
    headers: dict[str, str] | None = None,
    *_: object,
    **__: object,
) -> None:
    """POST one event to Optimizely.

    Takes whatever arguments a message may hold: a `TypeError` would come before anybody could
    keep the event.

    Ends as SUCCESS when the endpoint has answered 2xx, as RETRY when there will be another
    attempt, and as FAILURE when the event, or a part of it, was kept as a dead letter.
    """
    self.give_back_if_paused(url)
    try:
        outcome = _attempt(self, url, verb, params, headers)
    except (DeadLetterError, SettingsError) as exc:
        raise GiveBack(str(exc)) from None
    refused = self.request.get(REFUSED_HEADER, 0) + len(outcome.refused)
    if outcome.rest is not None and outcome.error is not None:
        # The retry carries what is left, not what has been delivered or kept.
        rest = outcome.rest
        self.request.update(
            args=[url, verb, rest.wire_params], argsrepr=rest.summary,
            # However they came: what is given twice cannot be published.
            kwargs={} if headers is None else {"headers": headers},
            **{REFUSED_HEADER: refused, PARTS_HEADER: list(outcome.parts)},
        )  # fmt: skip
        raise TransientDeliveryError(
            str(outcome.error),
            reason=outcome.error.reason,
            status=outcome.error.status,
            retry_after_s=outcome.error.retry_after_s,
            retry_in_s=outcome.retry_in_s,
            spends=outcome.error.spends,
        )
    if outcome.refused:
        last = outcome.refused[-1]
        raise PermanentDeliveryError(
            f"{last} ({refused} kept as dead letter)", reason=last.reason, status=last.status
        )
    if refused:
        raise PermanentDeliveryError(
            f"the rest was delivered ({refused} kept as dead letter by earlier attempts)",
            reason="partly_refused",
        )
    self.note_return()


def _attempt(task: DeliverTask, url: Any, verb: Any, params: Any, headers: Any) -> Outcome:
    runtime = task.runtime
    first_at = task.enqueued_at()
    attempt = Attempt(
        task_id=str(task.request.id),
        number=task.request.retries + 1,
        first_at=first_at,
        age_s=time.time() - first_at,
        parts=_sizes(task.request.get(PARTS_HEADER)),
    )
    dead, received_at = runtime.dead_letters, task.request.get(RECEIVED_AT_HEADER)

    def end(event: Event, reason: str) -> PermanentDeliveryError:
        dead.keep(attempt.kept(event, reason))
        return PermanentDeliveryError(f"{event.summary}: {reason}", reason=reason)

    try:
        ours = task.request.get(ENQUEUED_AT_HEADER) is not None
        event = Event.of(url, params, verb, headers, ours=ours, summary=task.known_summary())
    except NotAnEventError as exc:
        return Outcome(refused=(end(Event.raw(url, params, verb, headers), exc.reason),))
    try:
        return attempt_delivery(
            event, attempt, via=runtime.transport, policy=runtime.policy, dead=dead,
            # In line there is no other attempt, and no broker that waits.
            interrupted=None if task.request.is_eager else interruption(runtime, received_at),
        )  # fmt: skip
    except SoftTimeLimitExceeded:
        late = TransientDeliveryError(f"{event.summary}: soft time limit", reason="time_limit")
        return Outcome(event, runtime.policy.backoff_s(attempt.number), late)
    except DeadLetterError:
        raise
    except Exception:
        # A fault of this package must not cost the event: Celery acks a task that raised.
        logger.exception("unexpected error: %s", event.summary)
        return Outcome(refused=(end(event, "unexpected_error"),))


def _sizes(header: object) -> tuple[int, ...]:
    return tuple(header) if isinstance(header, list) else ()


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator, unused-ignore]
def _prepare_worker(sender: Any = None, **_: Any) -> None:
    if start.prepare(sender.app, tuning=(EtaLimit, Monitoring, OneCpu)):
        share_copies()
