"""Checks damaged and hostile columnar files: ``python -m tests.unit.data.columnar_fuzz KINDS COUNT SEED FOLDER``.

The reader's process is a fork of this one, which has imported pyarrow: starting it anew takes most of the time
otherwise. Prints the outcomes as JSON. Files with other outcomes than rows or one clear error are kept in FOLDER.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
from tests.unit.data.columnar_files import good_files, hostile_files
from tests.unit.data.columnar_mutants import columnar_mutants

from cloudtune.data.read import arrow, columnar_worker
from cloudtune.data.report import check

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = {"parquet": "parquet", "feather": "feather", "stream": "arrow", "xlsx": "xlsx"}
MEMORY = 1 << 30
"""Limit of the memory that the reader allocates. What it has from the process it is forked from does not count."""
SECONDS = 60
"""Limit of the reader's processor time. The product's own limit is longer, and of elapsed time."""
TOGETHER = 50


class Fork:
    """A fork that reads files, in place of the process that the product starts."""

    largest = 0

    def __init__(self) -> None:
        request, self.stdin = _pipe()
        self.stdout, answers = _pipe()
        self._code: int | None = None
        self._resident, data = _memory()
        self._pid = os.fork()
        if not self._pid:
            for number, file in enumerate((request, answers)):
                os.dup2(file.fileno(), number)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.closerange(3, 64)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            columnar_worker.MAX_MEMORY = data + MEMORY
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
            Fork.largest = max(Fork.largest, (usage.ru_maxrss << 10) - self._resident)
        return self._code


def _memory() -> tuple[int, int]:
    """Bytes of this process that are in memory, and that count toward its limit on data."""
    numbers = Path("/proc/self/statm").read_text().split()
    return tuple(int(numbers[i]) * resource.getpagesize() for i in (1, 5))  # type: ignore[return-value]


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


def outcomes(paths: list[Path]) -> dict[str, str]:
    """What the check of these files says of each: the code of its first error, or that it has rows."""
    try:
        report = check(tuple(map(str, paths)), workers=0, private=True, problems=10_000)
    except Exception:  # noqa: BLE001 - the product raises nothing here
        if len(paths) == 1:
            return {str(paths[0]): f"INTERNAL: {traceback.format_exc()[-300:]}"}
        return {name: found for path in paths for name, found in outcomes([path]).items()}
    found = dict.fromkeys(map(str, paths), "rows")
    for one in reversed(report.problems):
        if one.severity == "error" and one.file is not None:
            found[one.file] = _outcome(one.code, one.message)
    if not report.rows and "rows" in found.values():
        return {str(path): "INTERNAL: no rows and no error" for path in paths}
    return found


def _outcome(code: str, message: str) -> str:
    if "SIGXCPU" in message or "seconds" in message:
        return "HANG"
    if "exit code 70" in message or "SIGKILL" in message or len(message) > 2000:
        return f"INTERNAL: {message[:200]}"
    return "crash" if "crashed" in message else code


def fuzz(kind: str, count: int, seed: int, folder: Path) -> Counter[str]:
    """Check so many mutants. With seed 0, check the good and the hostile files first."""
    good = good_files(kind)
    groups: Iterator[list[bytes]] = batched(columnar_mutants(kind, good, count, seed), TOGETHER)
    if not seed:
        groups = itertools.chain([good], ([content] for _, content in hostile_files(kind)), groups)
    total: Counter[str] = Counter()
    for group in groups:
        paths = [folder / f"{number}.{SUFFIXES[kind]}" for number in range(len(group))]
        for path, content in zip(paths, group, strict=True):
            path.write_bytes(content)
        found = outcomes(paths)
        for path in paths:
            if found[str(path)].startswith(("HANG", "INTERNAL")):
                path.rename(folder / f"kept {seed} {total.total()} {path.name}")
        total.update(found.values())
    return total


def batched(files: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of so many."""
    while some := list(itertools.islice(files, size)):
        yield some


def main(kinds: str, count: int, seed: int, folder: Path) -> None:
    """Check so many mutants of each kind, in one process."""
    for name in ("pyarrow.parquet", "pyarrow.ipc", "python_calamine"):
        importlib.import_module(name)
    pa.set_cpu_count(1)  # a fork has the memory of all threads
    arrow._started = Fork  # type: ignore[assignment]
    found = {kind: fuzz(kind, count, seed, folder) for kind in kinds.split(",")}
    print(json.dumps({"outcomes": found, "bytes": Fork.largest}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
