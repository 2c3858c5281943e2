"""Parquet, Arrow and Feather files, and folders that the datasets library saved: batches of rows as dictionaries.

pyarrow can crash on a damaged file. A process of its own reads such files: see ``columnar_worker``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Self, cast

import msgspec

from cloudtune.data.read.blocks import MAX_ROW_BYTES
from cloudtune.data.read.columnar_worker import BATCH_SECONDS, END, FAULT, HEAD_BYTES, ROW_OVERHEAD, ask
from cloudtune.data.read.size_limits import AS_JSONL, expansion
from cloudtune.data.read.tables import Table
from cloudtune.files.regular_file import open_regular, read_regular
from cloudtune.install_command import install_command
from cloudtune.processes.environment import child_environment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from cloudtune.data.problem_list import Faults

ON_DISK = {"parquet": "pyarrow", "arrow": "pyarrow", "xlsx": "python_calamine"}
"""The formats that are read here, and the module that each needs."""
_LARGEST_INDEX = 64 << 20
_rows = msgspec.msgpack.Decoder(list[dict[str, object]])
_fault = msgspec.msgpack.Decoder(tuple[str, str, str])


class ColumnarReader:
    """Reads the files of one source with one process, which is started when the first of them is met."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def tables(self, path: Path, kind: str, faults: Faults, name: str) -> Iterator[Table]:
        """Rows of a file of a format in `ON_DISK`. ``name`` is what the file is called."""
        if find_spec(ON_DISK[kind]) is None:
            faults.error("not_installed", f"reading {kind} requires {ON_DISK[kind].replace('_', '-')}", file=name,
                         fix=install_command("data"))  # fmt: skip
            return
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            is_right = _looks_right(file, kind, size)
        if not is_right:
            faults.error(f"broken_{kind}", f"not a valid {kind} file: its first or last bytes are wrong",
                         file=name, fix="create it again, or set its format")  # fmt: skip
            return
        worker = self._worker or _started()
        self._worker = None  # it serves again only if it comes to the end of this file
        try:
            with contextlib.suppress(BrokenPipeError):
                ask(cast("IO[bytes]", worker.stdin), kind, str(path))
            if (yield from _tables(worker, kind, size, faults, name)):
                self._worker = worker
        finally:
            if self._worker is None:
                _end(worker)

    def _stop(self) -> None:
        if self._worker is not None:
            _end(self._worker)
        self._worker = None


def _started() -> subprocess.Popen[bytes]:
    environment = child_environment() | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cloudtune.data.read.columnar_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    for stream in (worker.stdin, worker.stdout):
        with contextlib.suppress(OSError):
            cast("IO[bytes]", stream).close()
    worker.wait()


def _tables(
    worker: subprocess.Popen[bytes], kind: str, size: int, faults: Faults, name: str
) -> Generator[Table, None, bool]:
    """The rows that the process sends. Gives whether the process can read another file."""
    number, total, filled_rows = 1, 0, 0
    while True:
        found = _frame(cast("IO[bytes]", worker.stdout))
        if found is None:
            faults.error(f"broken_{kind}", _crash(worker, kind, number), file=name,
                         fix="create it again, or write its rows as JSONL")  # fmt: skip
            return False
        first, content = found
        if first == END:
            return True
        if first == FAULT:
            code, message, fix = _fault.decode(content)
            faults.error(code, message, file=name, fix=fix)
            return True
        rows = _rows.decode(content)
        # A worksheet has empty rows, too. Its first row holds the names.
        numbers = range(number + (kind == "xlsx"), number + len(rows) + (kind == "xlsx"))
        filled = [(at, row) for at, row in zip(numbers, rows, strict=True) if kind != "xlsx" or any(row.values())]
        if filled:
            yield Table([at for at, _ in filled], [row for _, row in filled], True, kind == "xlsx")
        number += len(rows)
        total += len(content) + ROW_OVERHEAD * len(rows)
        filled_rows += len(filled)
        if excess := expansion(size, total, filled_rows):
            faults.error("decompressed_too_large", excess, file=name, fix=AS_JSONL)
            return False


def _frame(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The first byte of the next frame, and its content; None if the process ended before the file did."""
    head = stream.read(HEAD_BYTES)
    size = int.from_bytes(head[1:], "little")
    if len(head) < HEAD_BYTES or size > MAX_ROW_BYTES:
        return None
    content = stream.read(size)
    return (head[:1], content) if len(content) == size else None


def _crash(worker: subprocess.Popen[bytes], kind: str, number: int) -> str:
    code = worker.wait()
    if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:
        return f"this {kind} file is damaged: reading the rows from {number:,} took more than {BATCH_SECONDS} seconds"
    how = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    return f"this {kind} file is damaged: the process that read it crashed at or after row {number:,} ({how})"


def _looks_right(file: IO[bytes], kind: str, size: int) -> bool:
    """Whether the first bytes, and of Parquet the last ones, are those of such a file."""
    if kind == "xlsx":
        return size > 0  # a ZIP archive, whose reader checks it
    file.seek(0)
    head = file.read(8)
    file.seek(max(size - 4, 0))
    tail = file.read(4)
    if kind == "parquet":
        return size >= 12 and head[:4] == tail == b"PAR1"
    # A stream begins with the size of its schema, in newer versions behind four bytes of ones.
    start = int.from_bytes(head[:4], "little")
    return size >= 8 and (head.startswith((b"ARROW1\0\0", b"\xff\xff\xff\xff")) or 0 < start < size)


class _Splits(msgspec.Struct):
    """``dataset_dict.json``."""

    splits: list[str]


class _DataFile(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    """``state.json``."""

    data_files: list[_DataFile] = msgspec.field(name="_data_files", default_factory=list)


def dataset_files(folder: Path, faults: Faults) -> list[Path] | None:
    """Return the Arrow files of a folder written by ``Dataset.save_to_disk``, or None for other folders."""
    path = folder / "dataset_dict.json"
    try:
        if path.is_file():
            splits = msgspec.json.decode(read_regular(path, _LARGEST_INDEX), type=_Splits).splits
            faults.error(
                "is_directory", f"this folder contains the splits {', '.join(splits[:20]) or 'none'}", file=str(folder),
                fix=f"choose one: {folder / splits[0]}" if splits else "specify the files in it",
            )  # fmt: skip
            return []
        path = folder / "state.json"
        if not path.is_file():
            return None
        state = msgspec.json.decode(read_regular(path, _LARGEST_INDEX), type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        faults.error("bad_index", f"cannot find the files of the dataset: {error}", file=str(path),
                     fix="save the dataset again, or specify its files")  # fmt: skip
        return []
    names = [one.filename for one in state.data_files]
    if outside := [name for name in names if name in {"", ".", ".."} or any(mark in name for mark in "/\\\0")]:
        faults.error("bad_index", f"{outside[0][:200]!r} is not the name of a file in this folder", file=str(path),
                     fix="save the dataset again, or specify its files")  # fmt: skip
        return []
    return [folder / name for name in names]
