"""Measures tokens of records and finds those that are too long: exactly with the target's tokenizer, else by bytes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from cloudtune.data.checks.limits import length_problem
from cloudtune.data.read import wrong_values
from cloudtune.data.records import Chat, Preference
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.data.checks.tokens import Counter
    from cloudtune.data.places import Located
    from cloudtune.data.records import Record
    from cloudtune.data.scanned import Task
    from cloudtune.errors import Severity

TEMPLATE_TOKENS = 256
"""Maximum tokens that a chat template adds to a record: a default system message, markers around turns."""


class Measure:
    """Measures the records of batches."""

    def __init__(self, task: Task) -> None:
        self.limit = task.max_tokens
        self.longer = task.longer
        self.counter: Counter | None = None
        if task.tokenizer is not None:
            from cloudtune.data.checks.tokens import counter_of

            self.counter = counter_of(task.tokenizer)

    @property
    def counts_all(self) -> bool:
        """Whether the tokens of every record are counted, instead of only those that may be too long."""
        return self.counter is not None and self.longer == "count"

    def tokens(self, at: Located, records: Sequence[Record], lines: list[bytes], problems: list[Problem]) -> bytes:
        """Return the tokens of each record, 4 bytes each, if all are counted. Records over the limit are reported."""
        if self.counter is not None and self.counts_all:
            return self._counted(self.counter, at, records, problems)
        if self.limit is not None and self.counter is not None:
            self._over_limit(self.counter, at, records, lines, problems)
        elif self.limit is not None:
            self._maybe_over(at, lines, problems)
        return b""

    def _counted(self, counter: Counter, at: Located, records: Sequence[Record], problems: list[Problem]) -> bytes:
        """Count tokens, and report records that do not fit, and whether the answer would be truncated."""
        records = list(records)
        try:
            counts = counter.count(records)
        except ValueError:
            counts = _one_by_one(counter, at, records, problems)
        limit = self.limit
        if limit is not None and max(counts, default=0) > limit:
            for index, (record, count) in enumerate(zip(records, counts, strict=True)):
                if count > limit:
                    problems.append(at.locate(_too_long(counter, record, count, limit), index))
        return array("I", counts).tobytes()

    def _over_limit(
        self, counter: Counter, at: Located, records: Sequence[Record], lines: list[bytes],
        problems: list[Problem],
    ) -> None:  # fmt: skip
        """Count the tokens of the records that may be over the limit: a token has at least one byte."""
        limit = (self.limit or 0) - TEMPLATE_TOKENS
        long = [index for index, line in enumerate(lines) if len(line) > limit]
        if long:
            found: list[Problem] = []
            for some, sequences in _sequences(counter, long, records):
                self._counted(counter, at.some(some), sequences, found)
            severity: Severity = "warning" if self.longer == "warning" else "error"
            problems += [msgspec.structs.replace(problem, severity=severity) for problem in found]

    def _maybe_over(self, at: Located, lines: list[bytes], problems: list[Problem]) -> None:
        """Without the target's tokenizer: a token has at least one byte, so bytes are an upper bound of tokens."""
        limit = self.limit or 0
        if max(map(len, lines), default=0) <= limit:
            return
        for index, line in enumerate(lines):
            if len(line) > limit:
                problems.append(at.locate(length_problem(line, limit), index))


def _sequences(
    counter: Counter, places: list[int], records: Sequence[Record]
) -> Iterator[tuple[list[int], list[Record]]]:
    """The records for the model: each answer of a pair is separate, and the longer one counts."""
    pairs = [place for place in places if isinstance(records[place], Preference)]
    if others := [place for place in places if not isinstance(records[place], Preference)]:
        yield others, [records[place] for place in others]
    if pairs:
        yield pairs, [_longer_side(counter, records[place]) for place in pairs]


def _longer_side(counter: Counter, record: Record) -> Record:
    """A pair's prompt with the answer that has more tokens."""
    assert isinstance(record, Preference)
    sides: list[Record] = [Chat([*record.messages, *turns], record.tools) for turns in (record.chosen, record.rejected)]
    try:
        one, other = counter.count(sides)
    except ValueError:  # reported where the record is counted
        return sides[0]
    return sides[0] if one >= other else sides[1]


def _one_by_one(counter: Counter, at: Located, records: list[Record], problems: list[Problem]) -> list[int]:
    counts = []
    for index, record in enumerate(records):
        try:
            counts += counter.count([record])
        except ValueError as error:
            counts.append(0)
            problem = wrong_values.conversion(error)
            problems.append(at.locate(msgspec.structs.replace(problem, code="template"), index))
    return counts


def _too_long(counter: Counter, record: Record, count: int, limit: int) -> Problem:
    message = f"{count:,} tokens; the limit is {limit:,}"
    if isinstance(record, Chat):
        prompt_tokens = len(counter.spans(Chat(record.messages[:-1], record.tools))[1]) if record.messages[1:] else 0
        message += (
            "; the whole answer would be truncated" if prompt_tokens >= limit else "; the answer would be truncated"
        )
    return Problem(code="too_long", message=message, fix="shorten the row, or remove it")
