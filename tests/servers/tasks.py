"""The shop as a Celery app of a user: each visit is a task, run by a worker of that app."""

from __future__ import annotations

import os

from celery import Celery

from . import shop

app = Celery("shop", broker=os.environ["OPTLY_BROKER_URL"])
app.conf.update(
    task_default_queue="shop",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    optly_delivery=os.environ["OPTLY_DELIVERY"],
    optly_outbox_dir=os.environ["OPTLY_OUTBOX_DIR"],
)


@app.task(name="visit")
def visit(visitor: str) -> None:
    shop.visit(visitor)
