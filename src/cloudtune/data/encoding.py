"""``encode`` writes one split of the data as a file in a format."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.data.checks.preparing import go_through, sources
from cloudtune.data.media.addressing import media_folder
from cloudtune.data.problem_list import Faults
from cloudtune.data.scanned import Task
from cloudtune.data.split import shares
from cloudtune.data.transform.shaping import Piles
from cloudtune.data.write.formats_table import find_format
from cloudtune.data.write.output_file import temporary_file
from cloudtune.errors import DataError, Problem
from cloudtune.methods import DEFAULT_METHOD, only_items

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

    from cloudtune.data.checks.dataset_stats import Survey
    from cloudtune.data.scanned import Scanned
    from cloudtune.spec import Data

BOM = b"\xef\xbb\xbf"


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
    method: str = DEFAULT_METHOD,
    expect_sha256: str | None = None,
    allow_dropped: Iterable[str] = (),
) -> Encoded:
    """Write one split in a format (``cloudtune`` = canonical records), atomically.

    Files that the rows name are copied into ``media_folder(to)``, where their names are those in the written rows.

    Raises DataError with every row that the format cannot represent completely, unless the loss is allowed here or by
    the data; and if the records' hash is not ``expect_sha256``: the files changed since they were checked.
    """
    faults = Faults()
    form = find_format(format)
    if split != "train":
        data = data.model_copy(update={"mix": None})  # nothing is mixed into held-out splits
    handle, aside = temporary_file(to)
    try:
        with os.fdopen(handle, "wb") as out:
            file = Hashed(out, split, BOM if form.bom else b"")
            task = Task(
                method,
                shares(data),
                format=format,
                items=only_items(method),
                allow_dropped=frozenset([*allow_dropped, *(data.allow_dropped or ())]),
                words=False,
                media=True,
                media_folder=str(media_folder(to)),
            )
            _, survey = go_through(data, task, faults, file.put, items=task.items)
            side = survey.sides[split]
            out.flush()
            os.fsync(out.fileno())
        faults.raise_errors()
        if expect_sha256 is not None and side.hash.hexdigest() != expect_sha256:
            _refuse_change(data, split)
        os.replace(aside, to)
    except BaseException:
        Path(aside).unlink()
        shutil.rmtree(media_folder(to), ignore_errors=True)
        raise
    return Encoded(to, side.rows, file.size, file.sha256(survey))


class Hashed:
    """A file that takes one side's lines, counts and hashes them.

    As long as they are the canonical lines, whose hash is taken anyway, they are not hashed twice.
    """

    def __init__(self, out: IO[bytes], side: str, head: bytes = b"") -> None:
        self.out, self.side, self.size = out, side, len(head)
        self._own = hashlib.sha256(head) if head else None
        out.write(head)

    def put(self, scanned: Scanned, survey: Survey) -> None:
        """Write the side's lines. The survey does not have them yet."""
        side = scanned.sides.get(self.side)
        if side is None:
            return
        data = side.canonical if side.written is None else side.written
        if self._own is None and side.written is not None:
            self._own = survey.sides[self.side].hash.copy()
        if self._own is not None:
            self._own.update(data)
        self.out.write(data)
        self.size += len(data)

    def finish(self) -> None:
        """Write buffered lines: none here."""

    def sha256(self, survey: Survey) -> str:
        """The file's hash, once the statistics are complete."""
        return (self._own or survey.sides[self.side].hash).hexdigest()


class Shuffled(Hashed):
    """The same, in another order: the lines are written once all are collected."""

    def __init__(self, out: IO[bytes], side: str, head: bytes, seed: int) -> None:
        super().__init__(out, side, head)
        self._own = hashlib.sha256(head)
        self._piles = Piles(seed)

    def put(self, scanned: Scanned, survey: Survey) -> None:
        """Keep the side's lines."""
        side = scanned.sides.get(self.side)
        if side is not None:
            for line in (side.canonical if side.written is None else side.written).split(b"\n")[:-1]:
                self._piles.add(line)

    def finish(self) -> None:
        """Write all lines in their new order."""
        assert self._own is not None
        for line in self._piles.dealt():
            self.out.write(line + b"\n")
            self._own.update(line + b"\n")
            self.size += len(line) + 1


def _refuse_change(data: Data, split: str) -> None:
    named = sources(data)
    source = named.get(split, named["train"])
    problem = Problem(
        code="data_changed", message=f"the {split} rows have changed since the check", file=", ".join(source.paths),
        fix="plan again",
    )  # fmt: skip
    raise DataError([problem])
