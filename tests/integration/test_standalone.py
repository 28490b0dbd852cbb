"""``celery -A optly_celery worker``: no file needed, a ``celeryconfig.py`` over the defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import optly_celery
from optly_celery import dispatch
from optly_celery.testing.server import Answer

from ..support import US_URL, eventually, params_of

ROOT = Path(optly_celery.__file__).parents[1]


def report(cwd, **env):
    """What ``celery -A optly_celery report`` says of the configuration in a directory."""
    done = celery(cwd, "report", **env)
    assert done.returncode == 0, done.stdout
    return done.stdout


def celery(cwd, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "optly_celery", *arguments],
        cwd=cwd, env=os.environ | env, check=False, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_worker_needs_no_file(app, broker, collector, make_worker):
    """An empty directory and two environment variables are enough to deliver."""
    worker = make_worker(broker.url, url_override=collector.url)

    dispatch(US_URL, params_of())

    eventually(lambda: collector.received)
    assert "concurrency: 96 (thread)" in worker.output()
    assert "task events: ON" in worker.output()


def test_a_file_in_the_working_directory_is_read_over_the_defaults(
    app, broker, collector, make_worker, tmp_path
):
    """What it leaves out stays as the package has it: a partial file does not undo late acks."""
    (tmp_path / "celeryconfig.py").write_text(
        f'import os\nworker_concurrency = 3\noptly_url_override = "{collector.url}"\n'
    )
    worker = make_worker(broker.url)
    collector.script(Answer(204, {}, 0.5))
    dispatch(US_URL, params_of())
    eventually(lambda: collector.received)

    assert broker.client().hlen("unacked") == 1
    assert "concurrency: 3 (thread)" in worker.output()
    eventually(lambda: broker.client().hlen("unacked") == 0)


def test_the_file_wins_over_the_defaults_and_the_environment_over_the_defaults(tmp_path):
    """Defaults, then ``OPTLY_…``, then the file: the nearest to the worker has the last word."""
    (tmp_path / "celeryconfig.py").write_text("optly_max_age = 60\n")

    said = report(tmp_path, OPTLY_MAX_AGE="50", OPTLY_MAX_RETRIES="7")

    assert "optly_max_age: 60" in said
    assert "optly_max_retries: '7'" in said
    assert "task_acks_late: True" in said


def test_a_file_that_builds_on_the_defaults_may_import_them(tmp_path):
    """``from optly_celery.celeryconfig import *`` is what many would write first."""
    (tmp_path / "celeryconfig.py").write_text(
        "from optly_celery.celeryconfig import *\n"
        'broker_transport_options = {**broker_transport_options, "visibility_timeout": 400}\n'
    )

    said = report(tmp_path)

    assert "'visibility_timeout': 400" in said
    assert "'unacked_restore_interval': 10" in said


def test_another_module_may_be_named(tmp_path):
    """``CELERY_CONFIG_MODULE`` is Celery's own way to name the file; it is read instead."""
    (tmp_path / "celeryconfig.py").write_text("worker_concurrency = 5\n")
    (tmp_path / "ours.py").write_text("worker_concurrency = 6\n")

    said = report(tmp_path, CELERY_CONFIG_MODULE="ours")

    assert "worker_concurrency: 6" in said
    assert "task_acks_late: True" in said


@pytest.mark.parametrize("name", ["OPTLY_BROKER_URL", "CELERY_BROKER_URL"])
def test_the_broker_may_be_named_in_either_way(app, broker, collector, make_worker, name):
    """``OPTLY_BROKER_URL`` is ours, ``CELERY_BROKER_URL`` is Celery's own."""
    worker = make_worker(broker.url, url_override=collector.url, start=False)
    worker._env.pop("OPTLY_BROKER_URL")
    worker._env[name] = broker.url
    worker.start()

    dispatch(US_URL, params_of())

    eventually(lambda: collector.received)


def test_celerys_own_options_still_count(app, broker, collector, make_worker):
    """``-c``, ``-P`` and ``-Q`` on the command line win over the configuration."""
    worker = make_worker(broker.url, "-c", "2", "-P", "solo", url_override=collector.url)

    dispatch(US_URL, params_of())

    eventually(lambda: collector.received)
    assert "concurrency: 2 (solo)" in worker.output()


def test_a_queue_of_another_name_is_consumed_and_published_to(
    tmp_path, broker, collector, make_worker, monkeypatch
):
    """``OPTLY_QUEUE`` is one setting for both sides."""
    make_worker(broker.url, url_override=collector.url, queue="experiments")
    monkeypatch.setenv("OPTLY_BROKER_URL", broker.url)
    monkeypatch.setenv("OPTLY_QUEUE", "experiments")
    monkeypatch.chdir(tmp_path)

    dispatch(US_URL, params_of())

    eventually(lambda: collector.received)
    assert broker.client().smembers("_kombu.binding.experiments")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("worker_concurrency = 1 / 0\n", "ZeroDivisionError"),
        ("import no_such_module\n", "no_such_module"),
        ("worker_concurrency = = 1\n", "SyntaxError"),
        ("optly_quue = 'x'\n", "optly_quue is no setting of optly_celery"),
    ],
)
def test_a_broken_file_is_an_error_and_not_silence(tmp_path, content, error):
    """The worker does not start with the defaults as if the file were not there."""
    (tmp_path / "celeryconfig.py").write_text(content)

    done = celery(tmp_path, "worker", OPTLY_BROKER_URL="redis://127.0.0.1:1/0")

    assert done.returncode != 0
    assert error in done.stdout
    assert "ready." not in done.stdout


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"OPTLY_RETRY_BACKOFF_MAX": "99999"}, "reach the broker's visibility_timeout (360 s)"),
        ({"OPTLY_TYPO": "1"}, "optly_typo is no setting of optly_celery"),
        ({"OPTLY_QUUE": "x"}, "did you mean"),
        ({"OPTLY_MAX_RETRIES": "many"}, "optly_max_retries is 'many': a whole number"),
        ({"OPTLY_BROKER_URL": "amqp://127.0.0.1:1//"}, "set optly_dead_letter_url"),
        ({"OPTLY_BROKER_URL": "memory://"}, "the broker is not Redis"),
        ({"OPTLY_DEAD_LETTER_URL": "http://x"}, "optly_dead_letter_url is no Redis URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_end_the_worker_with_a_sentence(tmp_path, broker, app, env, sentence):
    """Exit code 78, one line, no traceback, and not a single message taken."""
    dispatch(US_URL, params_of())

    done = celery(tmp_path, "worker", **({"OPTLY_BROKER_URL": broker.url} | env))

    assert done.returncode == 78, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "optly" in line]
    assert sentence in line
    assert "Traceback" not in done.stdout
    assert broker.client().llen("optimizely") == 1


def test_the_file_of_the_repository_is_the_packages_own():
    """One file, so that what is documented at the root is what a worker without a file gets."""
    link = ROOT / "celeryconfig.py"

    assert link.is_symlink()
    assert link.resolve() == ROOT / "optly_celery" / "celeryconfig.py"
