"""``encode`` writes one split of the data as a file in a format."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.data import explain
from cloudtune.data.faults import Faults
from cloudtune.data.formats import LossError, find_format, loss_problem
from cloudtune.data.preparing import placed, sources
from cloudtune.errors import DataError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from cloudtune.spec import Data

_BOM = b"\xef\xbb\xbf"


class Encoded(NamedTuple):
    """A split that was written."""

    path: Path
    rows: int
    bytes: int
    sha256: str
    """Of the file."""


def encode(
    data: Data,
    *,
    split: str,
    format: str,  # noqa: A002 - the word that specs and commands use
    to: Path,
    method: str = "sft",
    expect_sha256: str | None = None,
    allow_loss: Iterable[str] = (),
) -> Encoded:
    """Write one split in a format (``cloudtune`` = canonical records), aside first and then renamed.

    Raises DataError with every row that the format cannot hold whole, unless what is lost is in ``allow_loss``; and if
    the records' hash is not ``expect_sha256``: the files changed since they were checked.
    """
    faults = Faults()
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            writing = _Writing(out, format, frozenset(allow_loss), faults)
            writing.write(data, split, method)
            out.flush()
            os.fsync(out.fileno())
        faults.raise_errors()
        if expect_sha256 is not None and writing.records.hexdigest() != expect_sha256:
            _refuse_change(data, split)
        os.replace(aside, to)
    except BaseException:
        Path(aside).unlink()
        raise
    return Encoded(to, writing.rows, writing.size, writing.file.hexdigest())


class _Writing:
    def __init__(self, out: IO[bytes], format_name: str, allowed: frozenset[str], faults: Faults) -> None:
        self.out, self.format, self.allowed, self.faults = out, find_format(format_name), allowed, faults
        self.records, self.file = hashlib.sha256(), hashlib.sha256()
        self.rows = self.size = 0

    def write(self, data: Data, split: str, method: str) -> None:
        if self.format.bom:
            self._put(_BOM)
        for line in self._lines(data, split, method):
            self._put(line)
            self.rows += 1

    def _put(self, written: bytes) -> None:
        self.file.update(written)
        self.out.write(written)
        self.size += len(written)

    def _lines(self, data: Data, split: str, method: str) -> Iterator[bytes]:
        for side, batch, number, record, line in placed(data, method, self.faults):
            if side != split:
                continue
            self.records.update(line)
            try:
                yield self.format.line(record, line, self.allowed)
            except LossError as error:
                self.faults.add(batch.locate(loss_problem(self.format.name, error.lost), number))
            except ValueError as error:
                self.faults.add(batch.locate(explain.conversion(error), number))


def _refuse_change(data: Data, split: str) -> None:
    named = sources(data)
    source = named.get(split, named["train"])
    problem = Problem(
        code="data_changed", message=f"the {split} rows are not those that were checked", file=", ".join(source.paths),
        fix="plan again: the files have changed since",
    )  # fmt: skip
    raise DataError([problem])
