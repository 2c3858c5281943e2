"""One batch of records gone through: faults, canonical lines, sides, hashes, words, and the lines to write.

This is the work that can be done for each batch apart, so it may run in another process: what goes in and what comes
out are plain values.
"""

from __future__ import annotations

from array import array
from itertools import compress
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.data import explain
from cloudtune.data.formats import LossError, find_format, loss_problem
from cloudtune.data.limits import length_problem
from cloudtune.data.losses import features
from cloudtune.data.record_checks import faults_of, is_plain
from cloudtune.data.records import Chat, Labelled, Picture, canonical_lines, kind_of
from cloudtune.data.rules import PRIVATE, STANDARD, Rule, forbidden, texts
from cloudtune.data.scanned import Scanned, Side, Task
from cloudtune.data.targets import TARGETS
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.data.formats import Format
    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record
    from cloudtune.data.tokens import TokenCounter
    from cloudtune.errors import Severity

_ANSWER = b'{"role":"assistant"'
LABEL_CHARS = 40
TEMPLATE_TOKENS = 256
"""What a chat template may add to a record at the most: a system's words of its own, marks around turns."""
MANY_LABELS = 200
_USUAL = frozenset({"system", "turns", "fields"})


class Scanner:
    """Goes through batches."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.format = find_format(task.format) if task.format else None
        target = TARGETS[task.target] if task.target else None
        rules: list[Rule] = [*STANDARD] if task.words else []
        if task.private:
            rules += PRIVATE
        if target is not None and target.forbidden:
            rules.append(forbidden(target.forbidden, target.name))
        self.rules = rules
        self.max_tokens = task.max_tokens or (target.max_tokens if target is not None else None)
        self.counter: TokenCounter | None = None
        if task.tokenizer is not None:
            from cloudtune.data.tokens import TokenCounter

            self.counter = TokenCounter(task.tokenizer)
        self.labelled = True
        self.longest: dict[str, int] = {}

    def scan(self, batch: Batch, origin: str) -> Scanned:
        """Everything about the batch's records that other batches do not bear on."""
        problems: list[Problem] = []
        plain = all(type(record) is Chat and is_plain(record) for record in batch.records)
        records, numbers = (batch.records, batch.lines) if plain else self._good(batch, problems)
        joined = canonical_lines(records)
        lines = joined.split(b"\n")
        lines.pop()
        for rule in self.rules:
            if rule.seen_in(joined):
                for number, record, line in zip(numbers, records, lines, strict=True):
                    if rule.seen_in(line):
                        problems += [batch.locate(problem, number) for problem in rule.problems(record)]
        tokens = b""
        if self.counter is not None and self.task.longer == "count":
            tokens = self._tokens(batch, numbers, records, problems)
        elif self.counter is not None:
            self._over_limit(batch, numbers, records, lines, problems)
        if self.max_tokens is not None and self.counter is None:
            self._lengths(batch, numbers, lines, problems)
        written: list[bytes] | bytes | None = None
        lost: dict[str, int] = {}
        if self.format is not None and (self.format.write is not None or not self.format.carries_all):
            written = self.format.lines(joined) if plain else None
            if written is None:
                written = self._written(self.format, batch, numbers, records, lines, problems)
                lost = self._lost(self.format, records)
            elif written is joined:
                written = None
        return Scanned(
            file=batch.file, by_row=batch.by_row, origin=origin, problems=problems,
            sides=self._sides(origin, records, lines, joined, written), kinds=_kinds(records),
            first=numbers[0] if numbers else 0,
            numbers=None if isinstance(numbers, range) else array("q", numbers).tobytes(),
            hashes=array("q", [*map(hash, lines)]).tobytes(),
            prompts=array("q", _prompts(records, lines)).tobytes(),
            sizes=array("I", [*map(len, lines)]).tobytes(),
            labels=self._labels(records), features={} if plain else _features(records), lost=lost, tokens=tokens,
        )  # fmt: skip

    def _good(self, batch: Batch, problems: list[Problem]) -> tuple[list[Record], Sequence[int]]:
        method = self.task.method
        faults = [faults_of(record, method=method) for record in batch.records]
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

    def _tokens(self, batch: Batch, numbers: Sequence[int], records: list[Record], problems: list[Problem]) -> bytes:
        """Count, and tell which records do not fit, and whether it is the answer that would be cut."""
        assert self.counter is not None
        try:
            counts = self.counter.count(records)
        except ValueError:
            counts = self._one_by_one(batch, numbers, records, problems)
        limit = self.max_tokens
        if limit is not None and max(counts, default=0) > limit:
            for number, record, count in zip(numbers, records, counts, strict=True):
                if count > limit:
                    problems.append(batch.locate(self._too_long(record, count, limit), number))
        return array("I", counts).tobytes()

    def _over_limit(
        self, batch: Batch, numbers: Sequence[int], records: list[Record], lines: list[bytes], problems: list[Problem]
    ) -> None:
        """Count the tokens of the records that may be over the limit: a token is a byte at the least."""
        limit = (self.max_tokens or 0) - TEMPLATE_TOKENS
        long = [index for index, line in enumerate(lines) if len(line) > limit]
        if long:
            found: list[Problem] = []
            self._tokens(batch, [numbers[index] for index in long], [records[index] for index in long], found)
            severity: Severity = "warning" if self.task.longer == "warning" else "error"
            problems += [msgspec.structs.replace(problem, severity=severity) for problem in found]

    def _one_by_one(self, batch: Batch, numbers: Sequence[int], records: list[Record],
                    problems: list[Problem]) -> list[int]:  # fmt: skip
        assert self.counter is not None
        counts = []
        for number, record in zip(numbers, records, strict=True):
            try:
                counts += self.counter.count([record])
            except ValueError as error:
                counts.append(0)
                problem = explain.conversion(error)
                problems.append(batch.locate(msgspec.structs.replace(problem, code="template"), number))
        return counts

    def _too_long(self, record: Record, count: int, limit: int) -> Problem:
        message = f"{count:,} tokens, the limit is {limit:,}"
        if isinstance(record, Chat) and self.counter is not None:
            asked = len(self.counter.spans(Chat(record.messages[:-1], record.tools))[1]) if record.messages[1:] else 0
            message += ": nothing of the answer would be left" if asked >= limit else ": the answer would be cut"
        return Problem(code="too_long", message=message, fix="shorten the row, or remove it")

    def _lengths(self, batch: Batch, numbers: Sequence[int], lines: list[bytes], problems: list[Problem]) -> None:
        """Without the target's tokenizer: a token is a byte at the least, so bytes bound tokens from above."""
        limit = self.max_tokens
        assert limit is not None
        for number, line in zip(numbers, lines, strict=True):
            if len(line) > limit:
                problems.append(batch.locate(length_problem(line, limit), number))

    def _written(self, form: Format, batch: Batch, numbers: Sequence[int], records: list[Record], lines: list[bytes],
                 problems: list[Problem]) -> list[bytes]:  # fmt: skip
        """The lines in the format that is asked for."""
        allowed = self.task.allow_loss
        written: list[bytes] = []
        for number, record, line in zip(numbers, records, lines, strict=True):
            try:
                written.append(form.line(record, line, allowed))
            except LossError as error:
                problems.append(batch.locate(loss_problem(form.name, error.lost), number))
                written.append(b"")
            except ValueError as error:
                problems.append(batch.locate(explain.conversion(error), number))
                written.append(b"")
        return written

    def _lost(self, form: Format, records: list[Record]) -> dict[str, int]:
        """How many records lose each feature, of those whose loss is allowed."""
        found: dict[str, int] = {}
        for name in self.task.allow_loss - form.carries:
            if count := sum(name in features(record) for record in records):
                found[name] = count
        return found

    def _labels(self, records: list[Record]) -> dict[str, int]:
        """How often each label, or each very short answer, is given; looked for until a batch has too few of them."""
        if not self.labelled:
            return {}
        found: dict[str, int] = {}
        for record in records:
            if type(record) is Chat:
                content = record.messages[-1].content
                if type(content) is str and len(content) <= LABEL_CHARS:
                    found[content] = found.get(content, 0) + 1
            elif isinstance(record, Labelled | Picture):
                found[str(record.label)] = found.get(str(record.label), 0) + 1
        self.labelled = sum(found.values()) >= 0.9 * len(records) and len(found) <= MANY_LABELS
        return found if self.labelled else {}

    def _longest(self, side: str, records: list[Record], lines: list[bytes]) -> int:
        """Characters of the longest record so far. A line has more bytes than that: shorter ones need no counting."""
        longest = self.longest.get(side, 0)
        if max(map(len, lines), default=0) > longest:
            for record, line in zip(records, lines, strict=True):
                if len(line) > longest:
                    longest = max(longest, sum([len(text) for _, _, text in texts(record)]))
            self.longest[side] = longest
        return longest

    def _sides(self, origin: str, records: list[Record], lines: list[bytes], joined: bytes,
               written: list[bytes] | bytes | None) -> dict[str, Side]:  # fmt: skip
        shares = self.task.shares
        if origin != "train" or not (shares.validation or shares.test):
            said = _ended(written) if isinstance(written, list) else written
            return {origin: Side(len(lines), self._longest(origin, records, lines), joined, said)}
        side_of = shares.side
        names = [side_of(line) for line in lines]
        if isinstance(written, bytes):
            written = written.split(b"\n")
            written.pop()
        found: dict[str, Side] = {}
        for name in set(names):
            mine = [side == name for side in names]
            kept = list(compress(lines, mine))
            longest = self._longest(name, list(compress(records, mine)), kept)
            said = None if written is None else _ended(list(compress(written, mine)))
            found[name] = Side(len(kept), longest, _ended(kept), said)
        return found


def _ended(lines: list[bytes]) -> bytes:
    """The lines, each with its end."""
    return b"\n".join([*lines, b""])


def _prompts(records: list[Record], lines: list[bytes]) -> list[int]:
    """Hashes of what comes before the last answer; 0 for records that are no conversations."""
    return [
        hash(line[: line.rfind(_ANSWER) + 1]) if type(record) is Chat else 0
        for record, line in zip(records, lines, strict=True)
    ]


def _features(records: list[Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in records:
        for name in features(record) - _USUAL:
            found[name] = found.get(name, 0) + 1
    return found


def _kinds(records: list[Record]) -> dict[str, int]:
    kinds: dict[Any, int] = {}
    for cls in {type(record) for record in records}:
        some = next(record for record in records if type(record) is cls)
        kinds[kind_of(some)] = sum([type(record) is cls for record in records])
    return kinds
