"""Statistics of all batches together: counts, hashes, duplicates, conflicts, leaks, balance."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections import Counter
from typing import IO, TYPE_CHECKING, NamedTuple

from cloudtune.data.checks.histogram import Histogram
from cloudtune.data.scanned import MAX_CLASSES, MAX_LABELS, MEDIA_KINDS
from cloudtune.data.transform.mixing import is_mixed_in
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloudtune.data.problem_list import Faults
    from cloudtune.data.scanned import Scanned

_IN_MEMORY = 4 << 20
_AT_ONCE = 1_000_000
"""Hashes compared in memory at the same time. More hashes are compared in several rounds."""
_REPEATED = 200_000
_LOOKED_AT = 256
"""Number of rows that are skipped at once if all of them are distinct."""
_HELD_OUT = {"validation", "test"}


class _Numbers:
    """64-bit numbers in order, on disk if there are many."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with it
        self.count = 0

    def add(self, numbers: bytes) -> None:
        self._file.write(numbers)
        self.count += len(numbers) // 8

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[array[int]]:
        self._file.seek(0)
        while data := self._file.read(1 << 20):
            found = array("q")
            found.frombytes(data)
            yield found
        self._file.seek(0, 2)

    def repeated(self) -> set[int]:
        """Numbers that occur more than once, in bounded memory (not all of them if there are very many)."""
        turns = self.count // _AT_ONCE + 1
        found: set[int] = set()
        for turn in range(turns):
            doubtful = self._doubtful(turn, turns)
            if not doubtful:
                continue
            times = Counter(
                number for mine in self._in_turn(turn, turns) for number in filter(doubtful.__contains__, mine)
            )
            found.update([number for number, many in times.items() if many > 1])
            if len(found) >= _REPEATED:
                break
        return found

    def _doubtful(self, turn: int, turns: int) -> set[int]:
        """Numbers that occur more than once, and some of their neighbors."""
        seen: set[int] = set()
        doubtful: set[int] = set()
        for mine in self._in_turn(turn, turns):
            for start in range(0, len(mine), _LOOKED_AT):
                some = mine[start : start + _LOOKED_AT]
                before = len(seen)
                seen.update(some)
                if len(seen) < before + len(some):
                    doubtful.update(some)
        return doubtful

    def _in_turn(self, turn: int, turns: int) -> Iterator[Sequence[int]]:
        if turns == 1:
            return iter(self)
        return ([number for number in some if number % turns == turn] for some in self)


class Place(NamedTuple):
    """The location of a record."""

    file: str
    line: int
    by_row: bool
    origin: str

    def __str__(self) -> str:
        return f"{self.file}:{'row ' if self.by_row else ''}{self.line}"


class _Segment(NamedTuple):
    """Records of one batch, from the n-th of all."""

    start: int
    scanned_file: str
    by_row: bool
    origin: str
    first: int
    numbers: bytes | None

    def place(self, index: int) -> Place:
        at = index - self.start
        line = self.first + at
        if self.numbers is not None:
            line = int.from_bytes(self.numbers[8 * at : 8 * at + 8], "little", signed=True)
        return Place(self.scanned_file, line, self.by_row, self.origin)


class SideTotal:
    """One side of the data."""

    def __init__(self) -> None:
        self.rows = self.bytes = self.longest = 0
        self.hash = hashlib.sha256()
        self.sizes, self.tokens = Histogram(), Histogram()
        self.classes: set[str] = set()
        """Distinct labels, for methods with one label per row. Counting stops soon after ``MAX_CLASSES``."""


class Survey:
    """Accumulates the statistics of batches."""

    def __init__(self, faults: Faults, sides: Iterable[str]) -> None:
        self.faults = faults
        self.rows = 0
        self.sides: dict[str, SideTotal] = {side: SideTotal() for side in sides}
        self.kinds: Counter[str] = Counter()
        self.features: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.kinds_by_origin: dict[str, set[str]] = {}
        self.labels: Counter[str] | None = Counter()
        self._asked = 0
        """Rows that can have labels: all except mixed-in rows."""
        self.duplicates = self.conflicts = self.leaks = 0
        self._hashes, self._prompts = _Numbers(), _Numbers()
        self._segments: list[_Segment] = []

    def add(self, scanned: Scanned) -> None:
        """Add one batch."""
        for problem in scanned.problems:
            self.faults.add(problem)
        for name, side in scanned.sides.items():
            total = self.sides[name]
            total.longest = max(total.longest, side.longest)
            total.rows += side.rows
            total.bytes += len(side.canonical)
            total.hash.update(side.canonical)
            if len(total.classes) <= MAX_CLASSES:
                total.classes |= side.classes
        count = len(scanned.hashes) // 8
        self._segments.append(
            _Segment(self.rows, scanned.file, scanned.by_row, scanned.origin, scanned.first, scanned.numbers)
        )
        self.rows += count
        self.kinds.update(scanned.kinds)
        self.features.update(scanned.features)
        self.lost.update(scanned.lost)
        self.kinds_by_origin.setdefault(scanned.origin, set()).update(scanned.kinds)
        self._hashes.add(scanned.hashes)
        self._prompts.add(scanned.prompts)
        if is_mixed_in(scanned.origin):
            return  # few of them may be used: they do not represent all rows
        self._add_sizes(scanned)
        self._add_labels(scanned.labels, count)

    def _add_sizes(self, scanned: Scanned) -> None:
        sizes, tokens = array("I"), array("I")
        sizes.frombytes(scanned.sizes)
        tokens.frombytes(scanned.tokens)
        if len(scanned.sides) == 1:
            (only,) = scanned.sides
            self.sides[only].sizes.add(sizes)
            self.sides[only].tokens.add(tokens)
            return
        for name, side in scanned.sides.items():
            mine = array("I")
            mine.frombytes(side.places)
            self.sides[name].sizes.add([sizes[index] for index in mine])
            if tokens:
                self.sides[name].tokens.add([tokens[index] for index in mine])

    @property
    def sizes(self) -> Histogram:
        """Bytes of the records of all sides."""
        return self._joined("sizes")

    @property
    def tokens(self) -> Histogram:
        """Tokens of the records of all sides."""
        return self._joined("tokens")

    def _joined(self, name: str) -> Histogram:
        whole = Histogram()
        for side in self.sides.values():
            whole.join(getattr(side, name))
        return whole

    def _add_labels(self, labels: dict[str, int] | None, count: int) -> None:
        """Short answers are labels only if almost every record has one (see ``finish``), and there are few."""
        self._asked += count
        if self.labels is None:
            return
        self.labels.update(labels or ())
        if labels is None or len(self.labels) > MAX_LABELS:
            self.labels = None

    @property
    def fingerprint(self) -> str:
        """Hash over all sides."""
        whole = hashlib.sha256()
        for name, side in self.sides.items():
            whole.update(f"{name} {side.hash.hexdigest()}\n".encode())
        return whole.hexdigest()

    def close(self) -> None:
        """Release the disk space."""
        self._hashes.close()
        self._prompts.close()

    def finish(self) -> None:
        """Report problems of all records together."""
        repeated = self._hashes.repeated()
        asked_twice = self._prompts.repeated()
        asked_twice.discard(0)
        if repeated or asked_twice:
            self._compare(repeated, asked_twice)
        if self.labels is not None and self.labels.total() < 0.9 * self._asked:
            self.labels = None
        self._balance()

    def _compare(self, repeated: set[int], asked_twice: set[int]) -> None:
        first_row: dict[int, Place] = {}
        first_answer: dict[int, tuple[int, Place]] = {}
        segments = iter(self._segments)
        segment = next(segments)
        following = next(segments, None)
        for index, row, prompt in self._suspects(repeated, asked_twice):
            while following is not None and following.start <= index:
                segment, following = following, next(segments, None)
            place = segment.place(index)
            if row in first_row:
                self._same(first_row[row], place)
            elif prompt in asked_twice and first_answer.setdefault(prompt, (row, place))[0] != row:
                self._conflict(first_answer[prompt][1], place)
            if row in repeated:
                first_row.setdefault(row, place)

    def _suspects(self, repeated: set[int], asked_twice: set[int]) -> Iterator[tuple[int, int, int]]:
        """Index, hash and prompt's hash of the rows that may be duplicates of other rows."""
        before = 0
        for rows, prompts in zip(self._hashes, self._prompts, strict=True):
            for start in range(0, len(rows), _LOOKED_AT):
                end = start + _LOOKED_AT
                if repeated.isdisjoint(rows[start:end]) and asked_twice.isdisjoint(prompts[start:end]):
                    continue
                for index in range(start, min(end, len(rows))):
                    if rows[index] in repeated or prompts[index] in asked_twice:
                        yield before + index, rows[index], prompts[index]
            before += len(rows)

    def _same(self, one: Place, other: Place) -> None:
        if one.origin != other.origin and {one.origin, other.origin} & _HELD_OUT:
            self.leaks += 1
            code, message = "leak", f"this {other.origin} row is also in the {one.origin} set, at {one}"
        else:
            self.duplicates += 1
            code, message = "duplicate", f"duplicate of {one}"
        self._warn(code, message, other, "remove duplicates with cloudtune data dedupe")

    def _conflict(self, one: Place, other: Place) -> None:
        self.conflicts += 1
        what = "file has a different label" if self.kinds.keys() & MEDIA_KINDS else "prompt has a different answer"
        if self.kinds.keys() & MEDIA_KINDS and one.origin != other.origin and {one.origin, other.origin} & _HELD_OUT:
            self.leaks += 1
            message = f"the file of this {other.origin} row is also in the {one.origin} set, with another label: {one}"
            self._warn("leak", message, other, "keep it in one of them, with the correct label")
            return
        self._warn("conflict", f"the same {what} at {one}", other, "keep the correct one")

    def _warn(self, code: str, message: str, place: Place, fix: str) -> None:
        where = {"row": place.line} if place.by_row else {"line": place.line}
        self.faults.add(
            Problem(code=code, severity="warning", message=message, file=place.file, fix=fix, **where)  # type: ignore[arg-type]
        )

    def _balance(self) -> None:
        if self.labels is None or len(self.labels) < 2 or self._asked < 20:
            return
        (most, many), (least, few) = self.labels.most_common(1)[0], self.labels.most_common()[-1]
        if many > 10 * few:
            message = f"imbalanced labels: {many} rows have {most!r}, {few} have {least!r}"
            self.faults.warn("imbalance", message, fix="run cloudtune data balance, or add rows of the rare labels")
