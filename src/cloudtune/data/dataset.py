"""`Dataset`: rows that are read lazily and transformed while they are read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.encoding import BOM, Encoded
from cloudtune.data.problem_list import Faults
from cloudtune.data.read import wrong_values
from cloudtune.data.read.causes import UNEXPECTED_ERRORS
from cloudtune.data.read.reading import read
from cloudtune.data.records import canonical
from cloudtune.data.transform.cleaning import normalised, redacted
from cloudtune.data.transform.filtering import condition
from cloudtune.data.transform.shaping import (
    balanced,
    digest,
    distinct,
    label_of,
    mixed,
    sampled,
    shuffled,
    thresholds,
)
from cloudtune.data.write.formats import LossError, loss_problem
from cloudtune.data.write.formats_table import find_format
from cloudtune.data.write.output_file import temporary_file
from cloudtune.methods import DEFAULT_METHOD, only_items
from cloudtune.spec import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record

_SPAN = 1 << 64


class Dataset:
    """Records of files, read again on each iteration. Every method returns a new Dataset without reading.

    Invalid rows raise DataError, which lists all of them, at the end.
    """

    def __init__(self, stream: Callable[[], Iterable[Record]]) -> None:
        self._stream = stream

    @classmethod
    def read(
        cls, *paths: str | os.PathLike[str], kind: str = "auto", format: str = "auto",  # noqa: A002
        columns: Mapping[str, str] | None = None, method: str = DEFAULT_METHOD,
    ) -> Dataset:  # fmt: skip
        """Rows of files in any supported format."""
        names = tuple(os.fspath(path) for path in paths)
        document = {"path": names, "kind": kind, "format": format, "columns": dict(columns or {})}
        return cls.of(Source.model_validate(document), method=method)

    @classmethod
    def of(
        cls, source: Source, *, method: str = DEFAULT_METHOD, change: Callable[[Batch], Batch] | None = None
    ) -> Dataset:  # fmt: skip
        """Rows of a spec's source; ``change`` removes or changes rows before they are checked."""

        def stream() -> Iterator[Record]:
            faults = Faults()
            for found_batch in read(source, faults, items=only_items(method)):
                batch = change(found_batch) if change else found_batch
                for line, record in zip(batch.lines, batch.records, strict=True):
                    if found := faults_of(record, method=method):
                        for fault in found:
                            faults.add(batch.locate(fault, line))
                    else:
                        yield record
            faults.raise_errors()

        return cls(stream)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._stream())

    def count(self) -> int:
        """The number of records."""
        return sum(1 for _ in self)

    def map(self, change: Callable[[Record], Record]) -> Dataset:
        """Change each record."""
        return Dataset(lambda: map(change, self))

    def filter(self, keep: Callable[[Record], bool] | str) -> Dataset:
        """The records for which ``keep`` is true: a function, or a condition such as ``chars<=4000``."""
        holds: Callable[[Record], bool] = condition(keep) if isinstance(keep, str) else keep
        return Dataset(lambda: (record for record in self if holds(record)))

    def dedupe(self, near: float | None = None) -> Dataset:
        """Remove duplicates; with ``near`` (0 to 1) also records with that similarity to an earlier one."""
        return Dataset(lambda: distinct(self, near))

    def sample(self, share: float, seed: int = 0) -> Dataset:
        """A sample of about that share of the records, chosen by content."""
        return Dataset(lambda: sampled(self, share, seed))

    def shuffle(self, seed: int = 0) -> Dataset:
        """Shuffle the records, in bounded memory."""
        return Dataset(lambda: shuffled(self, seed))

    def balance(
        self, label: Callable[[Record], str] = label_of, *, most: int | None = None, seed: int = 0
    ) -> Dataset:  # fmt: skip
        """Return at most ``most`` records per label, by default the count of the rarest label."""
        return Dataset(lambda: balanced(self._stream, seed, label, most))

    def redact(self) -> Dataset:
        """Redact keys, card numbers, bank accounts and e-mail addresses."""
        return self.map(redacted)

    def normalise(self) -> Dataset:
        """Normalize Unicode, line ends and blanks."""
        return self.map(normalised)

    def mix(self, *others: tuple[Dataset, float], seed: int = 0) -> Dataset:
        """Mix in rows of other datasets: the weight of a dataset is its number of rows per row of this one.

        Rows are used in the order of their seeded hashes. An exhausted dataset starts over.
        """
        return Dataset(lambda: mixed(self, others, seed))

    def split(
        self, validation: float = 0.1, test: float = 0.0, *, seed: int = 0,
        group: Callable[[Record], str] | None = None, stratify: Callable[[Record], str] | None = None,
    ) -> dict[str, Dataset]:  # fmt: skip
        """``train``, ``validation`` and ``test``, by hash of the content: equal records are in the same split.

        ``group``: records with the same group are in the same split. ``stratify``: each label is split by its share.
        """
        if group is not None and stratify is not None:
            raise ValueError("group and stratify cannot be combined")
        cut = _Cut(self, validation, test, seed, group, stratify)
        names = ["train", "validation"] + (["test"] if test else [])
        return {name: Dataset(lambda name=name: cut.side(name)) for name in names}  # type: ignore[misc]

    def write(
        self, path: str | os.PathLike[str], format: str = "cloudtune", *, allow_dropped: Iterable[str] = (),  # noqa: A002
    ) -> Encoded:  # fmt: skip
        """Write the records in a format, atomically. Raises DataError for losses that are not allowed."""
        out, form, allowed, faults = Path(path), find_format(format), frozenset(allow_dropped), Faults()
        handle, aside = temporary_file(out)
        rows, size, hashed = 0, 0, hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as stream:
                for line in _written(self, form, allowed, faults):
                    stream.write(line)
                    hashed.update(line)
                    size += len(line)
                    rows += 1
            faults.raise_errors()
            os.replace(aside, out)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        return Encoded(out, rows, size, hashed.hexdigest())


def _written(records: Iterable[Record], form: Any, allowed: frozenset[str], faults: Faults) -> Iterator[bytes]:
    head = BOM if form.bom else b""
    for number, record in enumerate(records, 1):
        try:
            yield head + form.line(record, canonical(record), allowed) + b"\n"
            head = b""
        except LossError as error:
            faults.error("loss", loss_problem(form.name, error.lost).message, row=number, field=",".join(error.lost),
                         fix=loss_problem(form.name, error.lost).fix)  # fmt: skip
        except (ValueError, *UNEXPECTED_ERRORS) as error:
            problem = wrong_values.conversion(error, record, lambda one: form.line(one, canonical(one), allowed))
            faults.error(problem.code, problem.message, row=number, field=problem.field, fix=problem.fix)


class _Cut:
    """The assignment of records to splits."""

    def __init__(
        self, records: Dataset, validation: float, test: float, seed: int, group: Callable[[Record], str] | None,
        stratify: Callable[[Record], str] | None,
    ) -> None:  # fmt: skip
        self.records, self.validation, self.test, self.seed = records, validation, test, seed
        self.group, self.stratify = group, stratify
        self._limits: dict[str, dict[str, int]] | None = None

    def side(self, name: str) -> Iterator[Record]:
        if self.stratify is not None and self._limits is None:
            labels: dict[str, list[int]] = {}
            for record in self.records:
                labels.setdefault(self.stratify(record), []).append(digest(record, self.seed))
            both = thresholds(labels, self.validation + self.test) if self.test else {}
            self._limits = {"validation": thresholds(labels, self.validation), "both": both}
        return (record for record in self.records if self._of(record) == name)

    def _of(self, record: Record) -> str:
        if self.stratify is not None:
            assert self._limits is not None
            at, label = digest(record, self.seed), self.stratify(record)
            if at < self._limits["validation"][label]:
                return "validation"
            return "test" if at < self._limits["both"].get(label, 0) else "train"
        if self.group is not None:
            hashed = hashlib.blake2b(self.group(record).encode(), digest_size=8, key=b"%d" % self.seed)
            share = int.from_bytes(hashed.digest(), "big") / _SPAN
        else:
            share = digest(record, self.seed) / _SPAN
        if share < self.validation:
            return "validation"
        return "test" if share >= 1 - self.test else "train"
