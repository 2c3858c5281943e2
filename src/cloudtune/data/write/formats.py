"""The file formats that records are written in, what each can hold, and what would be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.data.records import Chat, Message, Pair, canonical, kind_of
from cloudtune.data.write.dropped_features import ALL, features, without
from cloudtune.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.data.records import Record
    from cloudtune.data.row_rules import RowRule
    from cloudtune.data.write.row_template import Weave

    Writer = Callable[[Record, bytes], bytes]
    """Makes the line to write of a record and its canonical line."""


class Format(NamedTuple):
    """One way of writing records, a line each."""

    name: str
    summary: str
    kinds: frozenset[str]
    """The kinds of canonical records that it can hold; empty = all."""
    carries: frozenset[str]
    """The features that survive in it (see ``losses.FEATURES``)."""
    write: Callable[[Any], object] | None = None
    """Makes the JSON value to write. Raises ValueError for a record that cannot be said so. None = canonical."""
    bom: bool = False
    """The file begins with a byte order mark."""
    weave: Weave | None = None
    """How conversations of words alone are written, many at once."""
    own: str | None = None
    """The kind of rows that reads the format."""
    beside: tuple[tuple[str, str], ...] = ()
    """Names and contents of files that belong beside the rows."""
    rules: tuple[RowRule, ...] = ()
    """What its rows keep besides."""

    @property
    def carries_all(self) -> bool:
        """Whether nothing is ever lost in it."""
        return self.carries == ALL and not self.kinds

    def line(self, record: Record, line: bytes, allowed: frozenset[str] = frozenset()) -> bytes:
        """The line to write, given the canonical one. Raises ValueError: a fault, or a loss that is not allowed."""
        if (chat := self.as_chat(record)) is not record:
            record, line = chat, canonical(chat)
        if self.kinds and kind_of(record) not in self.kinds:
            raise ValueError(f"{self.name} cannot hold {kind_of(record)} records")
        if self.carries is not ALL and (lost := features(record) - self.carries):
            if lost - allowed:
                raise LossError(lost - allowed)
            record = without(record, lost)
            line = canonical(record)
        return line if self.write is None else canonical(self.write(record))  # type: ignore[arg-type]

    def as_chat(self, record: Record) -> Record:
        """A pair of texts as the conversation that it is written as, other records as they are."""
        if type(record) is Pair and "chat" in self.kinds and "pair" not in self.kinds:
            return Chat([Message("user", record.source), Message("assistant", record.target)])
        return record

    def carried(self, record: Record) -> Record:
        """What the format can hold of the record. Raises ValueError if nothing to learn is left."""
        record = self.as_chat(record)
        lost = features(record) - self.carries
        return without(record, lost) if lost else record

    @property
    def carries_plain(self) -> bool:
        """Whether it holds every conversation of words alone."""
        return self.carries >= {"system", "turns"}


class LossError(ValueError):
    """The format cannot carry these features of a record, and their loss was not allowed."""

    def __init__(self, lost: frozenset[str] | set[str]) -> None:
        super().__init__(", ".join(sorted(lost)))
        self.lost = frozenset(lost)


def loss_problem(format_name: str, lost: frozenset[str]) -> Problem:
    """The problem that a loss is, without its place."""
    names = ",".join(sorted(lost))
    return Problem(
        code="loss", message=f"{format_name} cannot hold {names.replace(',', ', ')}", field=names,
        fix=f"drop it with allow_dropped={names} (--allow-dropped {names}), or choose another format",
    )  # fmt: skip
