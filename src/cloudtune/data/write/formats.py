"""The file formats for writing records, the features that each supports, and losses."""

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
    """Creates the line to write from a record and its canonical line."""


class Format(NamedTuple):
    """A file format with one record per line."""

    name: str
    summary: str
    kinds: frozenset[str]
    """The kinds of canonical records that it supports; empty = all."""
    carries: frozenset[str]
    """The features that it supports (see ``dropped_features.FEATURES``)."""
    write: Callable[[Any], object] | None = None
    """Creates the JSON value to write. Raises ValueError for a record that it cannot represent. None = canonical."""
    bom: bool = False
    """The file begins with a byte order mark."""
    weave: Weave | None = None
    """The template for writing many text-only conversations at once."""
    own: str | None = None
    """The kind of rows that reads the format."""
    beside: tuple[tuple[str, str], ...] = ()
    """Names and contents of files that belong to the rows."""
    rules: tuple[RowRule, ...] = ()
    """Further rules for its rows."""

    @property
    def carries_all(self) -> bool:
        """Whether nothing is ever lost in it."""
        return self.carries == ALL and not self.kinds

    def line(self, record: Record, line: bytes, allowed: frozenset[str] = frozenset()) -> bytes:
        """The line to write, given the canonical one. Raises ValueError for an error, or a loss that is not allowed."""
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
        """A pair of texts as a conversation, other records unchanged."""
        if type(record) is Pair and "chat" in self.kinds and "pair" not in self.kinds:
            return Chat([Message("user", record.source), Message("assistant", record.target)])
        return record

    def carried(self, record: Record) -> Record:
        """The part of the record that the format supports. Raises ValueError if nothing to train on is left."""
        record = self.as_chat(record)
        lost = features(record) - self.carries
        return without(record, lost) if lost else record

    @property
    def carries_plain(self) -> bool:
        """Whether it supports every text-only conversation."""
        return self.carries >= {"system", "turns"}


class LossError(ValueError):
    """The format cannot carry these features of a record, and their loss was not allowed."""

    def __init__(self, lost: frozenset[str] | set[str]) -> None:
        super().__init__(", ".join(sorted(lost)))
        self.lost = frozenset(lost)


def loss_problem(format_name: str, lost: frozenset[str]) -> Problem:
    """The problem of a loss, without its location."""
    names = ",".join(sorted(lost))
    return Problem(
        code="loss", message=f"{format_name} cannot hold {names.replace(',', ', ')}", field=names,
        fix=f"drop it with allow_dropped={names} (--allow-dropped {names}), or choose another format",
    )  # fmt: skip
