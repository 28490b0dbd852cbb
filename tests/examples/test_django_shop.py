"""The Django shop works, and its README says how."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from ..support import eventually, free_port

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "django"


def commands():
    """What the README says to type, a line each."""
    readme = (SHOP / "README.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def run(tmp_path):
    """Run a command of the README in a directory, until the test ends: ``run(line, cwd)``."""
    started = []

    def start(line, cwd, **env):
        log = tmp_path / "shop.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S602 - a line of our own README
                f"exec {line}", shell=True, cwd=cwd, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | env, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process, log

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


class Browser:
    """Keeps cookies, and sends the forms of the page it is on."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self.page = ""

    def get(self, path="/"):
        with self._opener.open(self.base + path, timeout=30) as answer:
            self.page = answer.read().decode()
        return self.page

    def post(self, path, **fields):
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page)
        fields["csrfmiddlewaretoken"] = token[1]
        with self._opener.open(self.base + path, urlencode(fields).encode(), 30) as answer:
            self.page = answer.read().decode()
        return self.page

    def opens(self):
        try:
            return self.get()
        except URLError:
            return None


def test_its_own_tests_pass(tmp_path):
    """Whoever copies the example starts with tests that pass, warnings being errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test"], cwd=SHOP, check=False,
        env=os.environ | {"SHOP_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr


def test_the_page_needs_nothing_from_elsewhere_and_names_its_parts():
    """No font, script or style of another host; a language, a title, one heading of rank one."""
    page = (SHOP / "shop" / "templates" / "shop" / "index.html").read_text()

    assert not re.search(r"(?:https?:|[\"'])//", page)
    assert '<html lang="en">' in page
    assert "<title>" in page
    assert page.count("<h1") == 1


def test_it_looks_as_the_flask_shop_does():
    """A reader of both should see what differs: the framework."""
    flask = ROOT / "examples" / "flask" / "static"
    ours = SHOP / "shop" / "templates" / "shop"

    for name in ("shop.css", "shop.js"):
        assert (ours / name).read_text() == (flask / name).read_text()


def test_decisions_and_purchases_arrive_and_a_refused_payment_does_not(run, tmp_path):
    """The whole shop, its second command as the README has it, with this Python."""
    line = commands()[1].replace(".venv/bin/python", sys.executable)
    visit_and_buy(run, line, ROOT, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_works_in_a_fresh_clone(run, tmp_path):
    """Its commands, word for word, with nothing installed but Python."""
    clone = tmp_path / "clone"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,  # noqa: S607
        capture_output=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    install, start, test = commands()
    subprocess.run(install, shell=True, cwd=clone, check=True, capture_output=True)  # noqa: S602

    visit_and_buy(run, start, clone, tmp_path)
    subprocess.run(test, shell=True, cwd=clone, check=True, capture_output=True)  # noqa: S602


def visit_and_buy(run, line, cwd, home):
    port = free_port()
    shop, log = run(line, cwd, PORT=str(port), TMPDIR=str(home))
    browser = Browser(port)
    eventually(lambda: shop.poll() is not None or browser.opens(), what=f"an open shop, see {log}")
    assert shop.poll() is None, log.read_text()

    assert "Thank you!" in browser.post("/buy/")
    assert "no order, and nothing for" in browser.post("/buy/", refused="yes")
    browser.post("/another/")
    # Each POST leads back to the page, which decides: four times with the first visit.
    told = eventually(
        lambda: t if (t := json.loads(browser.get("/arrived/")))["events"] == 5 else 0
    )
    assert sum(row["visitors"] for row in told["variations"].values()) == 2
    assert sum(row["converted"] for row in told["variations"].values()) == 1
    assert told["refused"] == 0

    shop.send_signal(signal.SIGINT)
    assert shop.wait(60) == 0, log.read_text()
    assert "nothing of it is left running" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not list(home.glob("optly-django-shop-*"))
