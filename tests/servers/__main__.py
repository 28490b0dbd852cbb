"""What arrives, by server: with this package, and with what the SDK ships.

python -m tests.servers [--only WORD] [--columns outbox direct stock closed]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..line import Line
from .cases import CASES
from .run import Run

_VISITS = 500
_COLUMNS = {
    "outbox": ("ours", "outbox"),
    "direct": ("ours", "direct"),
    "stock": ("stock", "outbox"),
    "closed": ("closed", "outbox"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="servers whose name holds this")
    parser.add_argument("--columns", nargs="+", choices=_COLUMNS, default=list(_COLUMNS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Line(directory / "line", strict=True) as line:
            line.work()
            print("| " + " | ".join(["server", *options.columns]) + " |")
            print("|---" * (1 + len(options.columns)) + "|")
            for case in CASES:
                if options.only not in case.name:
                    continue
                cells = [case.name]
                for column in options.columns:
                    client, delivery = _COLUMNS[column]
                    place = directory / f"{case.name}-{client}-{delivery}".replace(" ", "-")
                    place.mkdir()
                    run = Run(case, line, place, client=client, delivery=delivery)
                    try:
                        found = run.serve(_VISITS)
                    except AssertionError as exc:
                        print(exc, file=sys.stderr)
                        cells.append("hangs" if "did not end" in str(exc) else "fails")
                        continue
                    print(case.name, client, delivery, found, file=sys.stderr)
                    cells.append(f"{found.arrived:,}")
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
