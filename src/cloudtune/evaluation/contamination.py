"""Which test rows are in the training data: equal, equal except for case and punctuation, or nearly equal.

Nearly equal means that the two rows share at least `NEAR` of all runs of three words that occur in either (their
Jaccard similarity). It is exact: no sampling, no hashing into sketches. Only the test rows are held in memory.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from cloudtune.data.records import canonical
from cloudtune.data.transform.mixing import mix_sources
from cloudtune.errors import Problem
from cloudtune.evaluation.rows import prompt_and_answer, text_of, training_records, training_side
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.data.records import Record
    from cloudtune.evaluation.rows import TestRow
    from cloudtune.spec import Data

NEAR = 0.8
_RUN = 3
_ROUNDING = 1e-9
_OPERATOR = re.compile(r"[*/%]|-(?=\s*\d)")
"""Punctuation with a meaning. Other operators are symbols in Unicode."""


class RowPlace(Value, frozen=True, kw_only=True):
    """Where a test row is."""

    file: str
    line: int


class Overlap(Value, frozen=True, kw_only=True):
    """Test rows that are also training rows."""

    checked: bool
    """Whether the training rows are known."""
    reason: str = ""
    """Why they are not."""
    equal: tuple[RowPlace, ...] = ()
    """Test rows that equal a training row."""
    similar: tuple[RowPlace, ...] = ()
    """Those that differ from one only in case, spaces and punctuation."""
    near: tuple[RowPlace, ...] = ()
    """Those that share most of their runs of three words with one."""
    same_prompt: tuple[RowPlace, ...] = ()
    """Those whose prompt has another answer in training."""
    validation: bool = False
    """The file is the validation data of the training."""

    @property
    def has_seen(self) -> bool:
        """Whether the answer of some row was in training."""
        return bool(self.equal or self.similar)


def overlap(rows: Sequence[TestRow], training: Data) -> Overlap:
    """Compare the rows with the training rows. Raises DataError if those cannot be read."""
    equal: set[bytes] = set()
    similar: set[bytes] = set()
    prompts: set[bytes] = set()
    near = _Near([_plain(f"{row.prompt_text}\n{row.expected}") for row in rows])
    for record in itertools.chain(training_records(training), _mixed_in(training)):
        equal.add(_hash(canonical(record)))
        found = prompt_and_answer(record)
        if not isinstance(found, Problem):
            prompts.add(_hash(_plain(text_of(found[0]))))
            whole = _plain(f"{text_of(found[0])}\n{found[1]}")
            similar.add(_hash(whole))
            near.compare(whole)
    in_equal, in_similar, in_near, in_prompts = [], [], [], []
    for number, row in enumerate(rows):
        place = RowPlace(file=row.file, line=row.line)
        if _hash(canonical(row.record)) in equal:
            in_equal.append(place)
        elif _hash(_plain(f"{row.prompt_text}\n{row.expected}")) in similar:
            in_similar.append(place)
        elif number in near.found:
            in_near.append(place)
        elif _hash(_plain(row.prompt_text)) in prompts:
            in_prompts.append(place)
    return Overlap(checked=True, equal=tuple(in_equal), similar=tuple(in_similar), near=tuple(in_near),
                   same_prompt=tuple(in_prompts), validation=_is_validation(rows, training))  # fmt: skip


def _mixed_in(training: Data) -> Iterator[Record]:
    """The records that can be mixed in. Training may use only some of them."""
    for source in mix_sources(training).values():
        yield from training_side(source, training)


def _is_validation(rows: Sequence[TestRow], training: Data) -> bool:
    """Whether a file of the rows is a file of ``data.validation``."""
    if training.validation is None or isinstance(training.validation, float):
        return False
    files = {Path(path).resolve() for path in training.validation.paths}
    return any(Path(file).resolve() in files for file in {row.file for row in rows})


class _Near:
    """Finds the texts that nearly equal one of those that they are compared with.

    Two sets with a similarity of `NEAR` share at least that part of the first one. So the other set has one of any
    ``1 - NEAR`` of its members, and an index of the rarest of those finds all candidates.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.found: set[int] = set()
        self._runs = [_runs(text) for text in texts]
        counts = Counter(run for runs in self._runs for run in runs)
        self._index: dict[int, list[int]] = {}
        for number, runs in enumerate(self._runs):
            rarest = sorted(runs, key=lambda run: (counts[run], run))
            for run in rarest[: len(runs) - ceil(NEAR * len(runs) - _ROUNDING) + 1]:
                self._index.setdefault(run, []).append(number)

    def compare(self, text: bytes) -> None:
        other = _runs(text)
        for number in {number for run in other for number in self._index.get(run, ())} - self.found:
            shared = len(other & self._runs[number])
            if shared >= NEAR * (len(other) + len(self._runs[number]) - shared):
                self.found.add(number)


def _runs(text: bytes) -> set[int]:
    """Hashes of the runs of words, or of the words of a shorter text."""
    words = text.split()
    return {hash(tuple(words[at : at + _RUN])) for at in range(max(1, len(words) - _RUN + 1))}


def places_text(places: Sequence[RowPlace], most: int) -> str:
    """At most that many lines, after their file if there are several files: ``1, 2``, or ``a.jsonl:1, b.jsonl:2``."""
    several = len({place.file for place in places}) > 1
    shown = [f"{Path(place.file).name}:{place.line}" if several else str(place.line) for place in places[:most]]
    return ", ".join([*shown, *(["..."] if len(places) > most else [])])


def _plain(text: str) -> bytes:
    """The text without case, spaces and punctuation. Operators, symbols and combining marks have a meaning."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    operators = {found.start() for found in _OPERATOR.finditer(folded)}
    words = "".join(
        letter if letter.isalnum() or place in operators or unicodedata.category(letter)[0] in "SM" else " "
        for place, letter in enumerate(folded)
    )
    return " ".join(words.split()).encode()


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
