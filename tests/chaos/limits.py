"""What a child suffers: see `cloudtune.testing.fork_server.Order.prepare`."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudtune.testing.clock import FakeClock

Trace = Callable[[str], None]


def few_pages(trace: Trace, *, ledger: str, pages: int) -> Trace:
    """The ledger's database may not grow over that many pages, as on a full disk or under a quota."""
    connect = sqlite3.connect

    def limited(database: Any, *rest: Any, **options: Any) -> sqlite3.Connection:
        db = connect(database, *rest, **options)
        if ledger in str(database) and "mode=ro" not in str(database):
            db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    sqlite3.connect = limited
    return trace


def full_disk(trace: Trace, *, after: int) -> Trace:
    """From the ``after``-th ledger write on no file can grow while the ledger is being written (RLIMIT_FSIZE)."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    writes = 0

    def limited(name: str) -> None:
        nonlocal writes
        writing = name.startswith("ledger before")
        writes += writing
        full = writing and writes >= after
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 if full else hard, hard))
        trace(name)

    return limited


def jump(trace: Trace, *, root: str, at: int, seconds: float) -> Trace:
    """The wall clock jumps at that failpoint."""
    clock = FakeClock(path=Path(root) / "clock")
    reached = 0

    def jumping(name: str) -> None:
        nonlocal reached
        reached += 1
        if reached == at:
            clock.jump(seconds)
        trace(name)

    return jumping
