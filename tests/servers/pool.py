"""The shop in a pool of ``multiprocessing``, whose children are replaced now and then.

    python -m tests.servers.pool fork|spawn PREFIX VISITS

The parent visits first, so that what a child inherits has been in use.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from . import shop


def visit(visitor: str) -> int:
    shop.visit(visitor)
    return os.getpid()


def main() -> None:
    method, prefix, visits = sys.argv[1], sys.argv[2], int(sys.argv[3])
    visitors = [f"{prefix}{number}" for number in range(visits)]
    pids = {visit(visitors[0])}
    pool = multiprocessing.get_context(method).Pool(4, maxtasksperchild=40)
    pids.update(pool.imap_unordered(visit, visitors[1:]))
    pool.close()
    pool.join()
    print(len(pids))


if __name__ == "__main__":
    main()
