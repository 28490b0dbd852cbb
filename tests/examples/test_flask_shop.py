"""The Flask example does what its README says."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ..support import eventually, free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flask"


class Browser:
    """Somebody who keeps cookies."""

    def __init__(self, url):
        self._url = url
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)

    def get(self, path):
        return self._opener.open(self._url + path, timeout=30).read().decode()

    def post(self, path):
        return self._opener.open(self._url + path, data=b"", timeout=30).read().decode()


@pytest.fixture
def run(tmp_path):
    """Start a command that serves the shop; give a browser, end it, and see that it has ended."""
    started = []

    def start(command, **options):
        port = free_port()
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=os.environ | {"PORT": str(port), "TMPDIR": str(tmp_path)},
                start_new_session=True, **options,
            )  # fmt: skip
        started.append(process)
        eventually(
            lambda: "The shop is open" in log.read_text() or process.poll() is not None,
            what="an open shop",
        )
        assert process.poll() is None, log.read_text()
        return process, Browser(f"http://127.0.0.1:{port}"), log

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def visit(browser):
    """Come by, buy, and wait until the page tells that both have arrived."""
    page = browser.get("/")
    assert "Free shipping" in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert "https://" not in page
    assert "Thank you!" in browser.post("/buy")

    told = eventually(lambda: t if (t := json.loads(browser.get("/arrived")))["events"] == 3 else 0)
    (row,) = told["variations"].values()
    assert (row, told["refused"]) == ({"visitors": 1, "converted": 1}, 0)


def test_the_shop_runs_and_leaves_nothing_behind(run, tmp_path):
    """All of its parts, and SIGTERM or Ctrl-C in the end."""
    process, browser, log = run([sys.executable, EXAMPLE / "run.py"])

    visit(browser)
    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 0, log.read_text()
    assert "nothing of it is left running" in log.read_text()
    assert not list(tmp_path.glob("optly-flask-shop-*"))
    assert _processes_in(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_the_parts_of_the_shop_end_with_it_even_by_sigkill(run, tmp_path):
    """A closed terminal or an impatient person must not leave a worker behind."""
    process, browser, _ = run([sys.executable, EXAMPLE / "run.py"])
    browser.get("/")
    assert len(_processes_in(tmp_path)) >= 3

    process.kill()

    eventually(lambda: _processes_in(tmp_path) == [])


def test_the_shops_own_tests_pass():
    """As a user would run them, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "."],
        cwd=EXAMPLE, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_can_be_followed_word_by_word(run, tmp_path):
    """In a fresh copy of what is under version control, with the commands as they stand there."""
    install, serve, get_pytest, test = _commands(EXAMPLE / "README.md")
    clone = tmp_path / "clone"
    files = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(files, check=True, capture_output=True).stdout.split(b"\0"):
        source = ROOT / name.decode()
        if name and source.is_file():
            target = clone / name.decode()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    _shell(install, clone)
    process, browser, log = run(["/bin/sh", "-c", f"exec {serve}"], cwd=clone)
    visit(browser)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, log.read_text()
    _shell(get_pytest, clone)
    assert " passed" in _shell(test, clone)


def _commands(readme):
    blocks = re.findall(r"^```\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def _shell(command, cwd):
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _processes_in(directory):
    """Those whose environment names it: what `run` has started, and what that has."""
    return [name for path in Path("/proc").glob("[0-9]*") if (name := _name(path, directory))]


def _name(process, directory):
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
        name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""  # gone, or not ours
    return name if f"TMPDIR={directory}".encode() in environment else ""
