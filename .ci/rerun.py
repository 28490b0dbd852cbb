"""Run what failed once more, and remember it: flakiness is to be seen, and seen only once.

    python .ci/rerun.py run NAMES COMMAND...    the command is pytest, with its options
    python .ci/rerun.py report NAMES            the last thing that CI says

`run` gives back the command's exit code. Where tests failed, and nothing else went wrong, they are
run once more, alone; when all pass, that counts. Their names go into the file NAMES, for `report`,
which fails where .ci/rerun-before.txt holds one of them. No more than five tests are rerun, over
all the runs that share a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MOST = 5
BEFORE = Path(__file__).with_name("rerun-before.txt")
_TESTS_FAILED = 1  # pytest's code for it; others say that pytest itself did, or was interrupted


def run(names: Path, command: list[str]) -> int:
    """Run pytest, and what fails of it once more; return the exit code."""
    code, failed = _pytest(command)
    # A module that cannot be collected is no test, and fails again anyway.
    if code != _TESTS_FAILED or not failed or not all("::" in name for name in failed):
        return code
    if len(_lines(names)) + len(failed) > MOST:
        _say(f"More than {MOST} tests have failed by now, so none of these is rerun.")
        return code
    _say(f"Once more, alone: {' '.join(failed)}")
    again, still = _pytest([*command, "-n", "0", *failed])
    well = set() if again not in (0, _TESTS_FAILED) else set(failed) - set(still)
    with names.open("a") as file:
        for name in failed:
            file.write(f"{'rerun' if name in well else 'failed again'}: {name}\n")
    return again


def report(names: Path, before: Path = BEFORE) -> int:
    """Print what was rerun, and return 1 where a test of it was rerun before."""
    listed = {_function(line) for line in _lines(before) if not line.startswith("#")}
    rerun = [line.partition(": ")[2] for line in _lines(names)]
    known = sorted({_function(name) for name in rerun} & listed)
    for name in known:
        _say(f"To be mended, as it was rerun before ({before.name}): {name}")
    _say("\n".join(_lines(names) or ["rerun: none"]))
    return int(bool(known))


def _pytest(command: list[str]) -> tuple[int, list[str]]:
    """The exit code, and what failed in this run, which is why the cache is a new one."""
    with tempfile.TemporaryDirectory() as cache:
        code = subprocess.run([*command, "-o", f"cache_dir={cache}"], check=False).returncode
        failed = Path(cache, "v", "cache", "lastfailed")
        return code, list(json.loads(failed.read_text())) if failed.exists() else []


def _function(name: str) -> str:
    """A test's name without its parameters: one that is flaky with these is so with others."""
    return name.partition("[")[0].partition(" ")[0]


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line] if file.exists() else []


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    what, names, *command = sys.argv[1:]
    sys.exit(run(Path(names), command) if what == "run" else report(Path(names)))
