"""Which Python the Makefile uses: the one that was asked for, or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The Makefile, and a .venv that is ready, but for the demo: that is a word."""
    for name in ("PYTHON", "VENV", "UNDER", "WORKERS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "Makefile").write_bytes(MAKEFILE.read_bytes())
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    program(venv / "bin" / "optly-celery", "echo the demo")
    for name in (".made", ".demo", ".dev"):
        (venv / name).touch()
    return tmp_path


def program(path, command):
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return path


def make(directory, *arguments, **environment):
    return subprocess.run(
        [MAKE, *arguments], cwd=directory, env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("given", ["command line", "environment"])
def test_another_python_than_the_one_of_the_venv_is_refused(project, given):
    """Nothing is run, and a sentence says what to do."""
    other = program(project / "python3.99", 'echo "3.99.0 in /opt/python3.99"')
    named = {"PYTHON": str(other)}
    if given == "environment":
        done = make(project, "demo", **named)
    else:
        done = make(project, "demo", f"PYTHON={other}")

    assert done.returncode != 0
    assert "the demo" not in done.stdout
    said = done.stderr.splitlines()[0]
    assert f"another Python ({sys.version.split()[0]} in " in said
    assert f"than {other} (3.99.0 in /opt/python3.99)." in said
    assert f"make PYTHON={other} VENV=.venv-other demo; " in said
    assert "make clean" in said


@pytest.mark.parametrize("given", [[], [f"PYTHON={sys.executable}"]], ids=["none", "the same"])
def test_an_existing_venv_is_used(project, given):
    """Whoever made it, where no Python is named, and where the named one did."""
    done = make(project, "demo", *given)

    assert (done.returncode, done.stdout) == (0, "the demo\n"), done.stderr


def test_the_sentences_advice_is_good(project):
    """Another directory is made with the other Python, which here ends in another sentence."""
    other = program(project / "python2", "exit 1")

    done = make(project, f"PYTHON={other}", "VENV=.venv-other", "demo")

    assert "This needs Python 3.11 or later" in done.stderr
    assert "another Python" not in done.stderr


def test_a_python_that_is_not_there_is_told(project):
    """It made no .venv."""
    done = make(project, "PYTHON=no-such-python", "demo")

    assert done.returncode != 0
    assert "than no-such-python (none that runs)" in done.stderr


def test_a_venv_whose_python_is_gone_is_told(project):
    """As after an update of the system, where somebody asks for a Python."""
    (project / ".venv" / "bin" / "python").unlink()

    done = make(project, f"PYTHON={sys.executable}", "demo")

    assert done.returncode != 0
    assert "another Python (gone since)" in done.stderr


@pytest.mark.parametrize("target", ["test", "test-slow", "coverage"])
def test_tests_run_on_two_workers_a_core(project, target):
    """And under the program that is named."""
    done = make(project, "-n", target, "UNDER=echo under")
    (command,) = [line for line in done.stdout.splitlines() if "-m pytest" in line]
    shown = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=True
    ).stdout

    assert shown.startswith("under .venv/bin/")
    assert f" -n {2 * os.sysconf('SC_NPROCESSORS_ONLN')} " in shown
