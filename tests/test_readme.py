"""The README's Python runs as it stands there, with a datafile for the project's key."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATAFILE = ROOT / "tests" / "sdk" / "datafile.json"
SNIPPETS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
)

# What stands around a snippet in the reader's project.
BEFORE = """\
from pathlib import Path
DATAFILE = datafile = Path({path!r}).read_text()
from optly_celery.testing import recording
seen = recording()
events = seen.__enter__()
"""

USE_CLIENT = """\
user = optimizely_client.create_user_context("ann")
user.track_event("purchase", {"revenue": 4200})
optimizely_client.close()
"""

DJANGO_BEFORE = """\
import sys, types
INSTALLED_APPS, MIDDLEWARE = [], []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

DJANGO_VIEW = """\
import django
from celery import Celery
from django.conf import settings
settings.configure(**{k: v for k, v in globals().items() if k.isupper() and k != "DATAFILE"},
                   SECRET_KEY="s", USE_TZ=True)
celery_app = Celery("proj")
celery_app.config_from_object("django.conf:settings", namespace="CELERY")
celery_app.set_default()
django.setup()
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.module_loading import import_string
def get_response(request):
    view(request)
    return HttpResponse()
handler = import_string(MIDDLEWARE[0])(get_response)
handler(RequestFactory().get("/"))
from optly_celery.contrib.django import client
assert client.is_valid
"""

FLASK_BEFORE = "from flask import Flask, session\n"

FLASK_VIEW = """\
app = create_app()
app.secret_key = "s"
with app.test_request_context("/"):
    session["visitor"] = "ann"
    view()
"""

TESTS_BEFORE = """\
import os, pytest
from optly_celery import create_client
os.environ["OPTLY_BROKER_URL"] = "redis://127.0.0.1:1/0"
@pytest.fixture
def browser():
    class Browser:
        def post(self, _):
            client = create_client(datafile=DATAFILE)
            client.create_user_context("ann").track_event("purchase", {"revenue": 1250})
    return Browser()
"""

SIGNALS = """\
class metrics:
    told = []
    @classmethod
    def increment(cls, *args, **kwargs):
        cls.told.append((args, kwargs))
"""

TRACKED = 'events.assert_tracked("purchase", revenue=4200)\n'


def snippet(mark: str) -> str:
    """The one snippet that holds this, with a datafile where a project's key stands."""
    (found,) = [text for text in SNIPPETS if mark in text]
    key = found.replace('"sdk_key": "…"', '"datafile": DATAFILE')
    return key.replace('sdk_key="…"', "datafile=DATAFILE")


def in_view(text: str, argument: str) -> str:
    """The snippet with what stands after "# a view" as a function."""
    setting, mark, view = text.partition("# a view\n")
    if not mark:
        return text
    return f"{setting}\ndef view({argument}):\n{textwrap.indent(view, '    ')}\n"


TRACK = """\
optimizely_client.track("purchase", "ann", None, {"revenue": 4200})
optimizely_client.close()
"""
CONF = """\
from optly_celery import Settings
assert Settings.from_celery(app.conf).delivery == "outbox"
"""
TASKS = "app.loader.import_default_modules()\nassert 'optly_celery.deliver' in app.tasks\n"
DROP = """\
from optly_celery.runtime.counters import Counters
Counters().drop("outbox_full")
assert metrics.told == [(("optimizely.dropped",), {"tags": ["reason:outbox_full"]})]
"""

# By what a snippet holds: what stands before it, and after it.
AROUND = {
    "as event_dispatcher": ("", TRACK + TRACKED),
    "create_client(": ("", USE_CLIENT + TRACKED),
    "ForwardingEventProcessor(": ("", USE_CLIENT + TRACKED),
    "contrib.django": (DJANGO_BEFORE, DJANGO_VIEW + TRACKED),
    "contrib.flask": (FLASK_BEFORE, FLASK_VIEW + TRACKED),
    "optly_delivery": ("from celery import Celery\napp = Celery('shop')\n", CONF),
    "include=": ("from celery import Celery\n", TASKS),
    "signals.dropped": (SIGNALS, DROP),
}


@pytest.mark.parametrize("mark", AROUND)
def test_a_snippet_of_the_readme_does_what_it_is_for(mark, tmp_path):
    """In a process of its own, as in the reader's."""
    program = tmp_path / "program.py"
    before, after = AROUND[mark]
    text = in_view(snippet(mark), "request" if "django" in mark else "")
    program.write_text(BEFORE.format(path=str(DATAFILE)) + before + text + after)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)], capture_output=True, text=True, cwd=tmp_path,
        check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_readmes_test_passes(tmp_path):
    """And fails where the shop does not track what it says."""
    text = snippet("optly_events")
    path = tmp_path / "test_shop.py"
    given = f"from pathlib import Path\nDATAFILE = Path({str(DATAFILE)!r}).read_text()\n"
    for body, code in ((text, 0), (text.replace("revenue=1250", "revenue=1"), 1)):
        path.write_text(given + TESTS_BEFORE + body)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", str(path)],
            capture_output=True, text=True, cwd=tmp_path, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == code, done.stdout


def test_no_snippet_is_left_out():
    """Each belongs to one of the tests above."""
    marks = [*AROUND, "optly_events"]
    assert [sum(mark in text for mark in marks) for text in SNIPPETS] == [1] * len(SNIPPETS)
