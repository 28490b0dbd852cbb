"""What the package does about uWSGI; the real one is in tests/servers."""

from __future__ import annotations

import logging
import signal
import sys
from types import SimpleNamespace

import pytest

from optly_celery.host import uwsgi
from optly_celery.runtime import process as runtime


@pytest.fixture
def inside(monkeypatch):
    """Be in a worker of uWSGI with these options."""

    def be(**options):
        opt = {name.replace("_", "-"): value for name, value in options.items()}
        monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=opt))

    return be


@pytest.fixture
def handlers():
    """Have handlers that are none of a shell's, which ignores some of these; put them back."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield numbers
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("options", "run"), [({}, False), ({"enable_threads": True}, True), ({"threads": b"2"}, True)]
)
def test_threads_run_where_uwsgi_was_told_so(inside, options, run):
    """Elsewhere in uWSGI a thread is started and never runs, so none may be relied upon."""
    inside(**options)

    assert uwsgi.threads_run() is run


def test_threads_run_everywhere_else():
    """Without uWSGI around the process there is no such restriction."""
    assert uwsgi.threads_run()


def test_exit_hooks_are_undisturbed_in_uwsgi_alone(inside, handlers):
    """Everywhere else signals are the application's business."""
    before = [signal.getsignal(number) for number in handlers]
    uwsgi.exit_undisturbed()
    assert [signal.getsignal(number) for number in handlers] == before

    inside()
    uwsgi.exit_undisturbed()

    assert {signal.getsignal(number) for number in handlers} == {signal.SIG_IGN}


def test_the_applications_own_uwsgi_atexit_is_still_called(inside, handlers):
    """There is room for one function; ours comes first, so that theirs is undisturbed as well."""
    seen = []
    inside()
    sys.modules["uwsgi"].atexit = lambda: seen.append(signal.getsignal(signal.SIGINT))

    uwsgi.exit_undisturbed_from_the_start()
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    sys.modules["uwsgi"].atexit()

    assert seen == [signal.SIG_IGN]


def test_in_line_publishing_is_said_once_and_takes_no_longer_than_a_request_may(
    inside, app, caplog, tmp_path
):
    """A relay with a thread has 5 s for a batch; here a request would wait for them."""
    app.conf.update(optly_outbox_dir=str(tmp_path), optly_publish_timeout=0.25)
    assert runtime.Runtime(app)._relay_timeout_s == 5.0
    inside()
    of_app = runtime.runtime_of(app)

    with caplog.at_level(logging.WARNING, logger="optly_celery"):
        assert of_app.store is of_app.store is not None

    assert of_app._relay_timeout_s == 0.25
    assert len([r for r in caplog.records if "enable-threads" in r.getMessage()]) == 1
