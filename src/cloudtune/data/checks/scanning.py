"""Scans one batch of records: problems, canonical lines, splits, hashes, text lengths, and the lines to write.

Each batch is independent, so the work can run in another process: inputs and outputs are plain values.
"""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.data.checks.label_checks import label_fault, labels_of
from cloudtune.data.checks.measuring import Measure
from cloudtune.data.checks.record_checks import faults_of, is_plain
from cloudtune.data.checks.targets import row_rules
from cloudtune.data.media.addressing import FIELDS, MediaFiles, with_whole_paths
from cloudtune.data.places import Located
from cloudtune.data.read import wrong_values
from cloudtune.data.read.causes import UNEXPECTED_ERRORS
from cloudtune.data.read.plain import ANSWER, PlainRows
from cloudtune.data.records import Chat, Labelled, Picture, canonical, canonical_lines, kind_of
from cloudtune.data.row_rules import RowRule
from cloudtune.data.rules import PRIVATE, STANDARD, Rule, texts
from cloudtune.data.scanned import MAX_LABELS, Scanned, Side, Task
from cloudtune.data.transform.mixing import is_mixed_in
from cloudtune.data.write.dropped_features import features
from cloudtune.data.write.formats import LossError, loss_problem
from cloudtune.data.write.formats_table import find_format
from cloudtune.methods import METHODS
from cloudtune.plugins import ROW_CHECKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.data.places import Batch
    from cloudtune.data.read.blocks import Block
    from cloudtune.data.read.decoding import FileRows
    from cloudtune.data.records import Record
    from cloudtune.data.write.formats import Format
    from cloudtune.errors import Problem

LABEL_CHARS = 40
_USUAL = frozenset({"system", "turns", "fields"})


class _Good(NamedTuple):
    """The valid records of a batch."""

    at: Located
    records: Sequence[Record]
    joined: bytes
    lines: list[bytes]
    """The canonical lines, joined and separate."""
    plain: bool
    """They are text-only conversations."""

    def as_bytes(self) -> PlainRows:
        """Properties of the lines that do not need records."""
        return self.records if isinstance(self.records, PlainRows) else PlainRows(self.joined, self.lines)

    def chars(self, index: int) -> int:
        """The length of the record's texts."""
        if isinstance(self.records, PlainRows):
            return self.records.chars(index)
        return sum([len(text) for _, _, text in texts(self.records[index])])


class Scanner:
    """Scans batches."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.format = find_format(task.format) if task.format else None
        rules: list[Rule] = [*STANDARD] if task.words else []
        if task.private:
            rules += PRIVATE
        self.rules = rules
        own = row_rules(task.rules_of)
        self.row_rules = [*(self.format.rules if self.format else ()), *(r for r in own if isinstance(r, RowRule))]
        self.measure = Measure(task)
        self.row_check = ROW_CHECKS.make(*task.row_check) if task.row_check is not None else None
        self.media = MediaFiles(task.media_folder) if task.media else None
        self._labels_seen: set[str] = set()
        method = METHODS.get(task.method)
        self._has_classes = method is not None and (method.labels or method.task == "unpaired_preference")
        self.longest: dict[str, int] = {}

    def scan_block(self, rows: FileRows, block: Block, origin: str) -> Iterator[Scanned]:
        """Decode a block, and return all results about its records that do not depend on other batches."""
        weave = self.format.weave if self.format is not None and self.format.carries_plain else None
        for part, plain in rows.parts(block, weave):
            if plain is None:
                yield self.scan(rows.of_block(part), origin)
                continue
            at = Located(rows.file, range(part.first_line, part.first_line + len(plain)))
            if part.pieces is not None:
                at = Located(rows.file, [line for line, _ in part.pieces])
            good = _Good(at, plain, plain.joined, plain.lines, True)
            yield self._scanned(good, origin, [])

    def scan(self, batch: Batch, origin: str) -> Scanned:
        """All results about the batch's records."""
        problems: list[Problem] = []
        plain = all(type(record) is Chat and is_plain(record) for record in batch.records)
        records, numbers = (batch.records, batch.lines) if plain else self._good(batch, problems)
        if records and type(records[0]) in FIELDS:
            records, numbers = self._addressed(batch._replace(records=records, lines=numbers), problems)
        joined = canonical_lines(records)
        lines = joined.split(b"\n")
        lines.pop()
        good = _Good(Located(batch.file, numbers, batch.by_row), records, joined, lines, plain)
        return self._scanned(good, origin, problems)

    def _scanned(self, good: _Good, origin: str, problems: list[Problem]) -> Scanned:
        at, records, lines = good.at, good.records, good.lines
        escaped = not isinstance(records, PlainRows) or records.escaped
        for rule in self.rules:
            if (escaped or not rule.escaped) and rule.seen_in(good.joined):
                for index, line in enumerate(lines):
                    if rule.seen_in(line):
                        problems += [at.locate(problem, index) for problem in rule.problems(records[index])]
        broken = self._vendor_rules(good, problems)
        if self.row_check is not None:
            for index, record in enumerate(records):
                problems += [at.locate(problem, index) for problem in self.row_check(record)]
        scanned = good.as_bytes()
        tokens = self.measure.tokens(at, records, lines, problems)
        written = self._written(good, problems, broken)
        return Scanned(
            file=at.file, by_row=at.by_row, origin=origin, problems=problems,
            sides=self._sides(origin, good, written), kinds=_kinds(records),
            first=at.lines[0] if lines else 0,
            numbers=None if isinstance(at.lines, range) else array("q", at.lines).tobytes(),
            hashes=scanned.hashes(), sizes=scanned.sizes(),
            prompts=scanned.prompts() if good.plain else _prompts(records, lines),
            labels=self._labels(records, origin), features={} if good.plain else _features(records),
            lost=self._lost(records) if isinstance(written, list) else {}, tokens=tokens,
        )  # fmt: skip

    def _vendor_rules(self, good: _Good, problems: list[Problem]) -> set[int]:
        """Report records that break a rule of the format or the vendor, and return their positions.

        Content that the format cannot represent breaks no rule: the loss is reported when the record is written.
        """
        broken: set[int] = set()
        rules = [rule for rule in self.row_rules
                 if (rule.quick.search(good.joined) if rule.quick else not good.plain)]  # fmt: skip
        for index, line in enumerate(good.lines if rules else ()):
            suspects = [rule for rule in rules if rule.quick is None or rule.quick.search(line)]
            if not suspects:
                continue
            record = good.records[index]
            if self.format is not None:
                try:
                    record = self.format.carried(record)
                except ValueError:
                    continue  # reported when the record is written
            found = [good.at.locate(problem, index) for rule in suspects for problem in rule.problems(record)]
            problems += found
            if any(problem.severity == "error" for problem in found):
                broken.add(index)
        return broken

    def _good(self, batch: Batch, problems: list[Problem]) -> tuple[list[Record], Sequence[int]]:
        method = self.task.method
        faults: list[Sequence[Problem]] = [faults_of(record, method=method) for record in batch.records]
        if (problem := self.task.problem) is not None:
            of_labels = [label_fault(record, problem) for record in batch.records]
            faults = [(*found, fault) if fault else found for found, fault in zip(faults, of_labels, strict=True)]
        if not any(faults):
            return batch.records, batch.lines
        records: list[Record] = []
        numbers: list[int] = []
        for record, number, found in zip(batch.records, batch.lines, faults, strict=True):
            if found:
                problems += [batch.locate(fault, number) for fault in found]
            else:
                records.append(record)
                numbers.append(number)
        return records, numbers

    def _addressed(self, batch: Batch, problems: list[Problem]) -> tuple[list[Record], Sequence[int]]:
        """The records whose files can be used, with the names of their content, and their lines.

        Where files are not checked, all records, with absolute paths.
        """
        if self.media is None:
            return with_whole_paths(batch).records, batch.lines
        records: list[Record] = []
        numbers: list[int] = []
        for record, number in zip(batch.records, batch.lines, strict=True):
            named, found = self.media.addressed(record, batch.file)
            problems += [batch.locate(problem, number) for problem in found]
            if named is not None:
                records.append(named)
                numbers.append(number)
        return records, numbers

    def _written(self, good: _Good, problems: list[Problem], broken: set[int]) -> list[bytes] | bytes | None:
        """The lines in the requested format; None if they are the canonical ones."""
        form = self.format
        if form is None:
            return None
        if good.plain and form.carries_plain:
            if form.write is None:
                return None
            if form.weave is not None:
                return good.as_bytes().woven(form.weave)
        elif form.write is None and form.carries_all:
            return None
        return self._one_by_one(form, good, problems, broken)

    def _one_by_one(self, form: Format, good: _Good, problems: list[Problem], broken: set[int]) -> list[bytes]:
        allowed = self.task.allow_dropped
        written: list[bytes] = []
        for index, (record, line) in enumerate(zip(good.records, good.lines, strict=True)):
            said = b""
            try:
                said = form.line(record, line, allowed)
            except LossError as error:
                problems.append(good.at.locate(loss_problem(form.name, error.lost), index))
            except (ValueError, *UNEXPECTED_ERRORS) as error:
                if index not in broken:  # its problem is already reported
                    problem = wrong_values.conversion(
                        error, record, lambda one: form.line(one, canonical(one), allowed)
                    )
                    problems.append(good.at.locate(problem, index))
            written.append(said)
        return written

    def _lost(self, records: Sequence[Record]) -> dict[str, int]:
        """The number of records that lose each feature whose loss is allowed."""
        assert self.format is not None
        found: dict[str, int] = {}
        for name in self.task.allow_dropped - self.format.carries:
            if count := sum(name in features(record) for record in records):
                found[name] = count
        return found

    def _labels(self, records: Sequence[Record], origin: str) -> dict[str, int] | None:
        """The count of each label, or of each very short answer; None once there are too many different ones."""
        if is_mixed_in(origin):
            return {}
        if len(self._labels_seen) > MAX_LABELS:
            return None
        short = records.short_answers(LABEL_CHARS) if isinstance(records, PlainRows) else map(_answer, records)
        found = Counter(said for said in short if said is not None and len(said) <= LABEL_CHARS)
        self._labels_seen.update(islice(found, MAX_LABELS + 1))
        return dict(found) if len(self._labels_seen) <= MAX_LABELS else None

    def _longest(self, side: str, good: _Good, lines: list[bytes], indexes: Sequence[int]) -> int:
        """Characters of the longest record so far. Lines have more bytes than that: shorter ones are not counted."""
        longest = self.longest.get(side, 0)
        if max(map(len, lines), default=0) > longest:
            for index, line in zip(indexes, lines, strict=True):
                if len(line) > longest:
                    longest = max(longest, good.chars(index))
            self.longest[side] = longest
        return longest

    def _sides(self, origin: str, good: _Good, written: list[bytes] | bytes | None) -> dict[str, Side]:
        shares, lines = self.task.shares, good.lines
        if origin != "train" or not (shares.validation or shares.test):
            said = _ended(written) if isinstance(written, list) else written
            longest = self._longest(origin, good, lines, range(len(lines)))
            classes = self._classes(good.records)
            return {origin: Side(len(lines), longest, good.joined, said, classes=classes)}
        names = [*map(shares.side, lines)]
        if isinstance(written, bytes):
            written = written.split(b"\n")
            written.pop()
        found: dict[str, Side] = {}
        for name in set(names):
            mine = [index for index, side in enumerate(names) if side == name]
            kept = [lines[index] for index in mine]
            said = None if written is None else _ended([written[index] for index in mine])
            places = array("I", mine).tobytes()
            classes = self._classes([good.records[index] for index in mine])
            longest = self._longest(name, good, kept, mine)
            found[name] = Side(len(kept), longest, _ended(kept), said, places, classes)
        return found

    def _classes(self, records: Sequence[Record]) -> set[str]:
        if not self._has_classes:
            return set()
        problem = self.task.problem
        return {label for record in records for label in labels_of(record, problem)}


def _ended(lines: list[bytes]) -> bytes:
    """The lines, each with its end."""
    return b"\n".join([*lines, b""])


def _answer(record: Record) -> str | None:
    """The record's possible label."""
    if type(record) is Chat:
        last = record.messages[-1]
        return last.content if type(last.content) is str and last.role == "assistant" else None
    if isinstance(record, Labelled) and isinstance(record.label, list):
        return ", ".join(map(str, record.label))
    return str(record.label) if isinstance(record, Labelled | Picture) else None


def _prompts(records: Sequence[Record], lines: list[bytes]) -> bytes:
    """Hashes of the text before the last answer, or of the file, 8 bytes each; 0 for records without one."""
    if records and (field := FIELDS.get(type(records[0]))) is not None:
        return array("q", [hash(getattr(record, field)) for record in records]).tobytes()
    ends = [type(record) is Chat and record.messages[-1].role == "assistant" for record in records]
    found = [hash(line[: line.rfind(ANSWER) + 1]) if end else 0 for line, end in zip(lines, ends, strict=True)]
    return array("q", found).tobytes()


def _features(records: Sequence[Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in records:
        for name in features(record) - _USUAL:
            found[name] = found.get(name, 0) + 1
    return found


def _kinds(records: Sequence[Record]) -> dict[str, int]:
    if isinstance(records, PlainRows):
        return {"chat": len(records)} if len(records) else {}
    kinds: dict[Any, int] = {}
    for cls in {type(record) for record in records}:
        some = next(record for record in records if type(record) is cls)
        kinds[kind_of(some)] = sum([type(record) is cls for record in records])
    return kinds
