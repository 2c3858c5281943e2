"""Checks damaged and hostile columnar files: ``python -m tests.unit.data.columnar_fuzz KIND COUNT SEED FOLDER``.

The reader's process is a fork of this one, which has imported pyarrow: starting it anew for each file takes most of the
time otherwise. Prints the outcomes as JSON. A file with another outcome than rows or one clear error is kept in FOLDER.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import IO

import pyarrow
from tests.unit.data.columnar_files import good_files, hostile_files
from tests.unit.data.columnar_mutants import columnar_mutants

from cloudtune.data.read import arrow, columnar_worker
from cloudtune.data.report import check

SUFFIXES = {"parquet": "parquet", "feather": "feather", "stream": "arrow", "xlsx": "xlsx"}
MEMORY = 1 << 30
SECONDS = 60
"""Of the reader's processor. Its own limit is longer, and of the clock."""


class Fork:
    """A fork that reads files, in place of the process that the product starts."""

    largest = 0

    def __init__(self) -> None:
        request, self.stdin = _pipe()
        self.stdout, answers = _pipe()
        self._code: int | None = None
        self._pid = os.fork()
        if not self._pid:
            os.dup2(request.fileno(), 0)
            os.dup2(answers.fileno(), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.closerange(3, 64)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            try:
                columnar_worker.main()
            except BaseException as error:  # noqa: BLE001 - nothing may return to the caller
                os._exit(134 if type(error).__name__ == "PanicException" else 70)
        request.close()
        answers.close()

    def kill(self) -> None:
        """End it, unless it has ended."""
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended, as `subprocess.Popen.wait` gives it."""
        if self._code is None:
            _, status, usage = os.wait4(self._pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
            Fork.largest = max(Fork.largest, usage.ru_maxrss << 10)
        return self._code


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


def outcome(path: Path) -> str:
    """What the check says of a file: the code of its first error, or that it has rows."""
    report = check(str(path), workers=0, private=True, problems=1000)
    errors = [one for one in report.problems if one.severity == "error"]
    if not errors:
        return "rows" if report.rows else "INTERNAL: no rows and no error"
    if any(len(str(one)) > 4000 for one in errors):
        return "INTERNAL: a long message"
    first = errors[0]
    if "SIGXCPU" in first.message or "seconds" in first.message:
        return "HANG"
    if "exit code 70" in first.message or "SIGKILL" in first.message:
        return f"INTERNAL: {first.message}"
    return "crash" if "crashed" in first.message else first.code


def main(kind: str, count: int, seed: int, folder: Path) -> int:
    """Check so many mutants, and before them the hostile files, with the first seed."""
    for name in ("pyarrow.parquet", "pyarrow.ipc", "python_calamine"):
        importlib.import_module(name)
    pyarrow.set_cpu_count(1)  # a fork has the memory of all threads
    columnar_worker.MAX_MEMORY = MEMORY
    arrow._started = Fork  # type: ignore[assignment]
    good = good_files(kind)
    path = folder / f"rows.{SUFFIXES[kind]}"
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    plain = (("good", one) for one in good)
    mutated = ((f"mutant {at}", one) for at, one in enumerate(columnar_mutants(kind, good, count, seed)))
    for name, content in chain(plain, hostile_files(kind) if not seed else (), mutated):
        path.write_bytes(content)
        before = time.monotonic()
        try:
            found = outcome(path)
        except Exception:  # noqa: BLE001 - counted
            found = "INTERNAL: " + traceback.format_exc()[-300:]
        slowest = max(slowest, time.monotonic() - before)
        if os.environ.get("SHOW") and time.monotonic() - before > float(os.environ["SHOW"]):
            print(name, len(content), found, time.monotonic() - before, file=sys.stderr, flush=True)
        if found.isupper() or found.startswith("INTERNAL"):
            (folder / f"kept {seed} {name[:20].replace('/', ' ')}.{SUFFIXES[kind]}").write_bytes(content)
        outcomes[found] += 1
    print(json.dumps({"outcomes": outcomes, "bytes": Fork.largest, "slowest": slowest}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
