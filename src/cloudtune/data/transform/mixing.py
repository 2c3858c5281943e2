"""Mixes rows of other sources into the training rows, such as general data that preserves the model's abilities.

The weight of a source is its rows per training row: 0.25 adds one after every fourth. Rows are used in the order of
their seeded hashes, so adding rows to a source changes few of the selected rows, and the same files always give the
same mixture. An exhausted source starts over, which is reported.
"""

from __future__ import annotations

import tempfile
from array import array
from hashlib import blake2b
from math import floor
from typing import IO, TYPE_CHECKING

from cloudtune.data.scanned import Scanned, Side
from cloudtune.data.split import shares
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudtune.data.problem_list import Faults
    from cloudtune.spec import Data, MixedIn

_IN_MEMORY = 16 << 20
_PREFIX = "mix["


class Pile:
    """Rows of one source, on disk when they are many, to be drawn in the order of their hashes."""

    def __init__(self, weight: float, seed: int) -> None:
        self.weight = weight
        self._key = b"mix %d" % seed
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with it
        self._hashes, self._ends = array("Q"), array("Q")
        self._middles = array("I")
        self._order: array[int] | None = None
        self.asked = self.drawn = 0

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, row: bytes, written: bytes | None = None) -> None:
        """Add a row, and its encoded form if that differs."""
        self._hashes.append(int.from_bytes(blake2b(row, digest_size=8, key=self._key).digest(), "big"))
        self._file.write(row)
        self._file.write(written or b"")
        self._middles.append(len(row))
        self._ends.append(self._file.tell())

    def due(self) -> Iterator[tuple[bytes, bytes]]:
        """The rows that belong behind the next row of the first source: each as it is, and what is written of it."""
        self.asked += 1
        while self.drawn < floor(self.asked * self.weight) and len(self):
            yield self._row(self.drawn % len(self))
            self.drawn += 1

    def _row(self, place: int) -> tuple[bytes, bytes]:
        if self._order is None:
            self._order = array("Q", sorted(range(len(self)), key=self._hashes.__getitem__))
        index = self._order[place]
        start = self._ends[index - 1] if index else 0
        self._file.seek(start)
        both = self._file.read(self._ends[index] - start)
        return both[: self._middles[index]], both[self._middles[index] :]

    def close(self) -> None:
        """Give back what is held on disk."""
        self._file.close()


class Mixture:
    """Inserts the rows of a spec's ``data.mix`` between the training rows. Its sources are read first."""

    def __init__(self, data: Data) -> None:
        self._shares = shares(data)
        self._sources = mix_sources(data)
        self._piles = {name: Pile(source.weight, data.split_seed) for name, source in self._sources.items()}
        self._longest = 0
        self._classes: set[str] = set()

    def through(self, scanned: Scanned) -> Scanned:
        """The batch with mixed-in rows; a batch of another source is stored until it is used."""
        if (pile := self._piles.get(scanned.origin)) is not None:
            for side in scanned.sides.values():
                self._keep(pile, side)
            scanned.sides = {}
        elif "train" in scanned.sides:
            scanned.sides["train"] = self._mixed(scanned.sides["train"])
        return scanned

    def _keep(self, pile: Pile, side: Side) -> None:
        lines = _lines(side.canonical)
        written = lines if side.written is None else _lines(side.written)
        self._longest = max(self._longest, side.longest)
        self._classes |= side.classes
        for line, said in zip(lines, written, strict=True):
            # Held-out rows must not be mixed in again: equal rows are in the same split.
            if self._shares.side(line) == "train":
                pile.add(line, None if said is line else said)

    def _mixed(self, side: Side) -> Side:
        rows: list[bytes] = []
        written: list[bytes] = []
        other = side.written is not None
        own = _lines(side.canonical)
        said = own if side.written is None else _lines(side.written)
        for line, words in zip(own, said, strict=True):
            rows.append(line)
            written.append(words)
            for pile in self._piles.values():
                for row, theirs in pile.due():
                    rows.append(row)
                    written.append(theirs or row)
                    other = other or bool(theirs)
        longest, both = max(side.longest, self._longest), _joined(written) if other else None
        return Side(len(rows), longest, _joined(rows), both, side.places, side.classes | self._classes)

    def report(self, faults: Faults) -> None:
        """Report how many rows of each source were mixed in."""
        for name, pile in self._piles.items():
            source = self._sources[name]
            where, field = ", ".join(source.paths), f"data.{name}"
            if not pile.drawn and pile.asked:
                faults.warn("mix_empty", f"no row of {where} is mixed in: weight {pile.weight:g}, {pile.asked:,} rows",
                            field=field, fix="use a larger weight, or add rows")  # fmt: skip
                continue
            message = f"{pile.drawn:,} rows of {where} are mixed in, of {len(pile):,} (weight {pile.weight:g})"
            faults.add(Problem(code="mix", severity="info", field=field, message=message))
            if pile.drawn > len(pile):
                times = -(-pile.drawn // len(pile))
                faults.warn("mix_repeats", f"some rows of {where} occur {times} times in an epoch", field=field,
                            fix="add rows, or use a smaller weight")  # fmt: skip

    def close(self) -> None:
        """Give back what is held on disk."""
        for pile in self._piles.values():
            pile.close()


def is_mixed_in(origin: str) -> bool:
    """Whether rows of that origin are only mixed into the training rows."""
    return origin.startswith(_PREFIX)


def mix_sources(data: Data) -> dict[str, MixedIn]:
    """The sources that are mixed in, by origin."""
    return {f"{_PREFIX}{number}]": source for number, source in enumerate(data.mix or ())}


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    lines.pop()
    return lines


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"\n".join([*lines, b""])
