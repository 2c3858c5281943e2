"""The kinds of rows that are recognized, and their conversion to canonical records.

A kind names the keys of its rows. From them and the source's column mapping a msgspec struct is made, so that rows are
decoded, checked for types and renamed in one step in C. The kinds themselves: ``kinds_chat`` and ``kinds_other``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw

from cloudtune.data.records import Chat, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudtune.data.records import Record

MAX_EXTRA = 32
"""Maximum extra keys of a row type. A new type is created for each of them."""


def fits_a_field(key: str) -> bool:
    """Whether a field of a struct can have this name: msgspec accepts none that JSON writes with an escape."""
    return '"' not in key and "\\" not in key and all(character >= " " for character in key)


def field_name(theirs: str, field: str) -> str:
    """The name that a row type gives a mapped key: the file's own where a field can have it, else one made up."""
    return theirs if theirs and fits_a_field(theirs) else f"<{field}>"


class Kind(NamedTuple):
    """One shape of row."""

    name: str
    required: dict[str, Any]
    """Key -> type."""
    optional: dict[str, Any] = {}
    record: Callable[[Any], Record] | None = None
    """Makes the canonical record of a decoded row. Raises ValueError. None if the row has the record's own fields."""
    canonical: type[Record] | None = None
    """The record's type, if the row has the same fields."""
    read: Callable[[dict[str, Any]], Record] | None = None
    """Makes the record of a row's values (under our names), in every dialect, and removes those that it uses.

    Used for rows that do not match the keys and types above. Raises ValueError.
    """
    also: frozenset[str] = frozenset()
    """Further keys that ``read`` uses."""
    makes: type[Record] = Chat
    """The type of its records."""
    tell: Callable[[Mapping[str, Any]], bool] | None = None
    """Distinguishes it from other kinds with the same keys."""
    keeps_extra: bool = False
    """Unknown keys are part of the record."""
    free_form: bool = False
    """Rows contain blocks of any content, so their records need another type check."""

    @property
    def keys(self) -> frozenset[str]:
        """All its keys."""
        return frozenset(self.required) | frozenset(self.optional) | self.also

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row with these values (under our names) is of this kind."""
        return self.required.keys() <= row.keys() and (self.tell is None or self.tell(row))


class RowType(NamedTuple):
    """How rows of one source are decoded."""

    kind: Kind
    columns: dict[str, str]
    """Maps the file's keys to field names."""
    extra: tuple[str, ...]
    """Keys of the file that the kind does not know."""
    struct: type[Any]
    lines: msgspec.json.Decoder[Any]
    array: msgspec.json.Decoder[Any]


def row_type(kind: Kind, columns: Mapping[str, str], extra: tuple[str, ...] = ()) -> RowType:
    """The decoders for a kind whose keys have other names in the file, and for the keys that it does not know."""
    struct: Any
    if not columns and not extra and kind.canonical is not None:
        struct = kind.canonical
    else:
        names = {
            field: field_name(theirs, field) for theirs, field in columns.items() if field in kind.keys - kind.also
        }
        known = kind.required.keys() | kind.optional.keys()
        names |= {field: field_name("", field) for field in known if field in columns and field not in names}
        fields: list[Any] = list(kind.required.items())
        fields += [(name, kind_type, UNSET) for name, kind_type in kind.optional.items()]
        for i, key in enumerate(extra):
            fields.append((f"extra_{i}", Any if kind.keeps_extra else Raw, UNSET))
            names[f"extra_{i}"] = key
        struct = msgspec.defstruct(
            f"Row_{kind.name}", fields, rename={name: names.get(name, name) for name, *_ in fields}, gc=False,
            forbid_unknown_fields=True, kw_only=True,
        )  # fmt: skip
    return RowType(kind, dict(columns), extra, struct, msgspec.json.Decoder(struct), msgspec.json.Decoder(list[struct]))


def records(rows: list[Any], how: RowType) -> list[Record]:
    """Canonical records of decoded rows. Raises ValueError if one of them makes no record."""
    kind = how.kind
    if how.struct is kind.canonical:
        return rows
    if kind.keeps_extra:
        return [_with_extra(row, how) for row in rows]
    if kind.record is not None:
        make = kind.record
        made = [make(row) for row in rows]
        return [checked(one) for one in made] if kind.free_form else made
    if kind.canonical is None:
        raise ValueError("rows of this kind are read one by one")
    fields = kind.canonical.__struct_fields__
    return [kind.canonical(*[getattr(row, field) for field in fields]) for row in rows]


def _with_extra(row: Any, how: RowType) -> Record:
    assert how.kind.record is not None
    record: Any = how.kind.record(row)
    more = {how.columns.get(key, key): getattr(row, f"extra_{i}") for i, key in enumerate(how.extra)}
    return with_fields(record, {key: value for key, value in more.items() if value is not UNSET})


def with_fields(record: Any, more: Mapping[str, Any]) -> Record:
    """The record with more fields, in the order of their names: rows that mean the same are the same bytes."""
    record.fields = dict(sorted({**record.fields, **more}.items()))
    return record  # type: ignore[no-any-return]
