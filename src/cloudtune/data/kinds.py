"""The kinds of rows that are recognised, and how each becomes a canonical record.

A kind names the keys of its rows. From them and the source's column mapping a msgspec struct is made, so that rows are
decoded, checked for types and renamed in one step in C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from cloudtune.data.records import Chat, Message, Record, Text, compact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Kind(NamedTuple):
    """One shape of row."""

    name: str
    required: dict[str, Any]
    """Key -> type."""
    optional: dict[str, Any]
    record: Callable[[Any], Record] | None
    """Makes the canonical record of a decoded row; None if the row already is one."""

    @property
    def keys(self) -> frozenset[str]:
        """Every key that it knows."""
        return frozenset(self.required) | frozenset(self.optional)


def _from_prompt(row: Any) -> Record:
    messages = [Message("user", row.prompt), Message("assistant", row.completion)]
    if row.system is not UNSET and row.system:
        messages.insert(0, Message("system", row.system))
    return Chat(messages)


def _from_instruction(row: Any) -> Record:
    asked, given = row.instruction, row.input
    if given is not UNSET and given is not None and given != "":
        asked = f"{asked}\n\n{compact(given)}"
    messages = [Message("user", asked), Message("assistant", compact(row.output))]
    if row.system is not UNSET and row.system:
        messages.insert(0, Message("system", row.system))
    return Chat(messages)


_SYSTEM = {"system": str | None | UnsetType}
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("chat", {"messages": list[Message]}, {}, None),
        Kind("prompt_completion", {"prompt": str, "completion": str}, _SYSTEM, _from_prompt),
        Kind("instruction", {"instruction": str, "output": Any}, {"input": Any, **_SYSTEM}, _from_instruction),
        Kind("text", {"text": str}, {}, None),
    )
}
_CANONICAL: dict[str, type[Record]] = {"chat": Chat, "text": Text}


def recognise(keys: Iterable[str]) -> Kind | None:
    """The first kind whose required keys are all there."""
    there = set(keys)
    return next((kind for kind in KINDS.values() if there.issuperset(kind.required)), None)


class RowType(NamedTuple):
    """How rows of one source are decoded."""

    kind: Kind
    columns: dict[str, str]
    """The file's key -> ours."""
    unused: tuple[str, ...]
    """Keys of the file that are passed over."""
    struct: type[Any]
    lines: msgspec.json.Decoder[Any]
    array: msgspec.json.Decoder[Any]


def row_type(kind: Kind, columns: Mapping[str, str], unused: tuple[str, ...] = ()) -> RowType:
    """The decoders for a kind whose keys have other names in the file, less the keys that are not used."""
    struct: Any
    if not columns and not unused and kind.record is None:
        struct = _CANONICAL[kind.name]
    else:
        names = {ours: theirs for theirs, ours in columns.items()}
        fields: list[Any] = [(name, kind_type) for name, kind_type in kind.required.items()]
        fields += [(name, kind_type, UNSET) for name, kind_type in kind.optional.items()]
        for i, key in enumerate(unused):
            fields.append((f"unused_{i}", Raw, Raw()))
            names[f"unused_{i}"] = key
        struct = msgspec.defstruct(
            f"Row_{kind.name}", fields, rename={name: names.get(name, name) for name, *_ in fields}, gc=False,
            forbid_unknown_fields=True, kw_only=True,
        )  # fmt: skip
    return RowType(
        kind, dict(columns), unused, struct, msgspec.json.Decoder(struct), msgspec.json.Decoder(list[struct])
    )


def records(rows: list[Any], how: RowType) -> list[Record]:
    """Canonical records of decoded rows."""
    if how.kind.record is not None:
        return [how.kind.record(row) for row in rows]
    if how.kind.name == "text":
        return rows if how.struct is Text else [Text(row.text) for row in rows]
    return rows if how.struct is Chat else [Chat(row.messages) for row in rows]
