"""What CI makes of tests that fail: .ci/rerun.py, with real runs of pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT, LIST = ROOT / ".ci" / "rerun.py", ROOT / ".ci" / "rerun-before.txt"
TESTS_FAILED, INTERRUPTED, USAGE = 1, 2, 4

FLAKY = """
import pathlib
import pytest

def fails_at_first(name):
    seen = pathlib.Path(name + ".seen")
    again = seen.exists()
    seen.touch()
    assert again

def test_good():
    pass

@pytest.mark.parametrize("how", ["a b", "c::d/e"])
def test_flaky(how):
    fails_at_first(how.replace("/", "-"))
"""


class Ci:
    """A directory with tests, a copy of the script, and the file for the names."""

    def __init__(self, directory):
        self.directory = directory
        self.names = directory / "names"
        self.list = directory / "ci" / LIST.name
        self.list.parent.mkdir()
        self._script = self.list.with_name(SCRIPT.name)
        self._script.write_bytes(SCRIPT.read_bytes())

    def write(self, source, name="test_it.py"):
        (self.directory / name).write_text(source)

    def run(self, *options):
        """Run the tests on two workers; how that ended, and each pytest's last line."""
        pytest_ = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", *options]
        done = self._do("run", *pytest_)
        return done.returncode, re.findall(r"^=+ (.*) in .* =+$", done.stdout, re.MULTILINE)

    def report(self):
        """What is said at the end, and whether CI passes."""
        done = self._do("report")
        return done.returncode, done.stdout.splitlines()

    def _do(self, what, *command):
        return subprocess.run(
            [sys.executable, self._script, what, self.names, *command],
            cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def ci(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Ci(tmp_path)


def test_what_passes_is_not_rerun(ci):
    """One run, and the report says that there was no more."""
    ci.write("def test_good(): pass")

    assert ci.run() == (0, ["1 passed"])
    assert ci.report() == (0, ["rerun: none"])


def test_what_fails_once_is_rerun_and_named(ci):
    """No more than that; and its name is the last thing said, whatever it is made of."""
    ci.write(FLAKY)

    assert ci.run() == (0, ["2 failed, 1 passed", "2 passed"])
    code, said = ci.report()
    assert (code, sorted(said)) == (
        0,
        ["rerun: test_it.py::test_flaky[a b]", "rerun: test_it.py::test_flaky[c::d/e]"],
    )


def test_what_fails_again_is_a_failure(ci):
    """It is told from what passed at its second go."""
    ci.write(FLAKY + "\ndef test_wrong():\n    assert False\n")

    assert ci.run("-k", "b or wrong") == (TESTS_FAILED, ["2 failed", "1 failed, 1 passed"])
    assert sorted(ci.report()[1]) == [
        "failed again: test_it.py::test_wrong",
        "rerun: test_it.py::test_flaky[a b]",
    ]


def test_an_error_of_a_fixture_is_a_failure_like_others(ci):
    """Before the test or after it."""
    ci.write(
        f"{FLAKY}\n@pytest.fixture\ndef late():\n    yield\n    fails_at_first('late')\n"
        "def test_late(late): pass\n"
    )

    assert ci.run("-k", "late") == (0, ["1 passed, 1 error", "1 passed"])
    assert ci.report() == (0, ["rerun: test_it.py::test_late"])


@pytest.mark.parametrize(
    "listed",
    [
        "test_it.py::test_flaky",
        "test_it.py::test_flaky[a b]",
        "test_it.py::test_flaky[another]",
        "test_it.py::test_flaky  # 2025-11-30: timed out",
        "test_other.py::test_flaky\ntest_it.py::test_flaky",
    ],
)
def test_what_was_rerun_before_fails(ci, listed):
    """With whatever parameters; the names are said all the same, and last."""
    ci.write(FLAKY)
    ci.list.write_text(f"# why\n\n{listed}\n")

    assert ci.run("-k", "b")[0] == 0
    code, said = ci.report()
    assert code == 1
    assert "test_it.py::test_flaky" in said[0]
    assert said[1:] == ["rerun: test_it.py::test_flaky[a b]"]


@pytest.mark.parametrize(
    "listed", ["", "# test_it.py::test_flaky", "test_it.py::test_fla", "it.py::test_flaky"]
)
def test_what_is_not_on_the_list_passes(ci, listed):
    """Neither a comment nor half a name counts."""
    ci.names.write_text("rerun: test_it.py::test_flaky[a b]\n")
    ci.list.write_text(listed)

    assert ci.report() == (0, ["rerun: test_it.py::test_flaky[a b]"])


@pytest.mark.parametrize(("before", "now"), [(0, 6), (3, 3)])
def test_more_than_five_are_not_rerun(ci, before, now):
    """Over all runs of one CI, and at once: so many have a cause."""
    ci.names.write_text("".join(f"rerun: test_a.py::test_{n}\n" for n in range(before)))
    ci.write("".join(f"def test_{n}():\n    assert False\n" for n in range(now)))

    assert ci.run() == (TESTS_FAILED, [f"{now} failed"])
    assert len(ci.report()[1]) == max(before, 1)


def test_five_are_rerun(ci):
    """The most."""
    ci.names.write_text("rerun: test_a.py::test_one\n" * 3)
    ci.write(FLAKY)

    assert ci.run() == (0, ["2 failed, 1 passed", "2 passed"])
    assert len(ci.report()[1]) == 5


def test_what_cannot_be_collected_is_not_rerun(ci):
    """Nor is what failed beside it: xdist runs the others all the same."""
    ci.write(FLAKY)
    ci.write("import nothing_of_this_name", "test_broken.py")

    assert ci.run() == (TESTS_FAILED, ["2 failed, 1 passed, 1 error"])
    assert ci.run("-n", "0") == (INTERRUPTED, ["1 error"])
    assert ci.report() == (0, ["rerun: none"])


@pytest.mark.parametrize(
    ("hook", "code"),
    [
        ("def pytest_sessionfinish():\n    os._exit(3)", 3),
        ("def pytest_sessionfinish():\n    os.kill(os.getpid(), 9)", 256 - 9),
        ("def pytest_runtest_logfinish():\n    raise KeyboardInterrupt", INTERRUPTED),
    ],
    ids=["crashed", "killed", "interrupted"],
)
def test_a_pytest_that_went_wrong_itself_is_no_flaky_test(ci, hook, code):
    """Its exit code is handed on, even though tests had failed by then."""
    ci.write(FLAKY)
    ci.write(f"import os\n{hook}\n", "conftest.py")

    assert ci.run("-n", "0")[0] == code
    assert ci.report() == (0, ["rerun: none"])


def test_a_command_that_does_not_run_fails(ci):
    """An option that pytest does not know."""
    ci.write(FLAKY)

    assert ci.run("--no-such-option")[0] == USAGE
    assert ci.report() == (0, ["rerun: none"])


def test_what_is_on_the_list_is_there():
    """A test that is renamed is renamed there; one that is gone is taken off."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        path, *_, name = line.partition("#")[0].partition("[")[0].split("::")
        assert f"def {name.strip()}(" in (ROOT / path).read_text(), line
