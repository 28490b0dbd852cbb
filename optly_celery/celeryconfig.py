"""Configuration of the standalone worker, ``celery -A optly_celery worker``.

A ``celeryconfig.py`` in the working directory is read over this one, so it needs to hold only
what differs. Environment: ``OPTLY_BROKER_URL``, and ``OPTLY_`` before the name of each setting in
upper case. Every value here that is not Celery's default has its reason beside it.
"""

import os

broker_url = os.environ.get("OPTLY_BROKER_URL", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True  # a worker that starts before its broker waits for it
broker_channel_error_retry = True  # and outlives a Redis that fails over

broker_transport_options = {
    # Longer than the longest backoff (300 s) and two attempts (2 x 13 s), or Redis would hand a
    # waiting event out again; shorter than Celery's hour, since the events of a worker that was
    # killed come back only then. The shortest value among all apps on one Redis wins.
    "visibility_timeout": 360,
    # Look for such events every 10 s, not every 100 s.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # One worker at a time looks; one that is killed at it must not keep the others for 5 minutes.
    "unacked_mutex_expire": 10,
    # A broker that hangs, or is gone without a word, is left after so long, not after 15 minutes.
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
}

task_default_queue = os.environ.get("OPTLY_QUEUE", "optimizely")  # what a plain worker consumes
task_acks_late = True  # an event leaves the broker when it is delivered or kept, not before
task_reject_on_worker_lost = True  # a killed child's events go back to the queue at once
task_ignore_result = True  # nobody reads results; dead letters and Flower tell what happened

task_serializer = "json"
accept_content = ["json"]  # pickle in a broker is remote code execution
result_serializer = "json"

worker_pool = "threads"  # the task waits for the network: docs/decisions/0002-worker-pool.md
worker_concurrency = 96  # so many POSTs of 60 ms at a time fill one core, and some more
worker_prefetch_multiplier = 2  # receipts and acks go in groups: a tenth less CPU than with 1
worker_eta_task_limit = 10_000  # retries wait in memory; about 60 MB at 2 kB an event
worker_send_task_events = True  # or Flower shows nothing
# At SIGQUIT (and at SIGTERM under REMAP_SIGTERM=SIGQUIT) the worker ends after this long, which is
# longer than one POST. SIGTERM itself waits for the POSTs under way: optly_request_deadline.
worker_soft_shutdown_timeout = 15.0
worker_enable_soft_shutdown_on_idle = True  # with only waiting retries in hand, too

# Unknown ones, too: the worker refuses them with a sentence, an error here would be a traceback.
globals().update(
    {
        k.lower(): v
        for k, v in os.environ.items()
        if k.startswith("OPTLY_") and k != "OPTLY_BROKER_URL"
    }
)
