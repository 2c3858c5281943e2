"""Thrift's compact protocol, in which Parquet writes its footer and the heads of its pages.

The fields have numbers and no names here: see
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (seen 2026-11-29).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class Struct:
    """The fields, each as number, type and value. A list is a pair of the items' type and the items."""

    def __init__(self) -> None:
        self.fields: list[list[Any]] = []

    def get(self, number: int) -> Any:
        """The value of a field, or None."""
        return next((value for one, _, value in self.fields if one == number), None)

    def set(self, number: int, value: Any) -> None:
        """Set the value of a field that is there."""
        for field in self.fields:
            if field[0] == number:
                field[2] = value


def decoded(content: bytes) -> tuple[Struct, int]:
    """The struct at the beginning, and its length."""
    return _struct(content, 0)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _struct(content: bytes, at: int) -> tuple[Struct, int]:
    made, number = Struct(), 0
    while head := content[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            zigzag, at = _varint(content, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        kind = head & 15
        value, at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(kind, content, at)
        made.fields.append([number, kind, value])
    return made, at + 1


def _value(kind: int, content: bytes, at: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE, _BYTE):
        return content[at], at + 1
    if kind in (_I16, _I32, _I64):
        zigzag, at = _varint(content, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if kind == _DOUBLE:
        return content[at : at + 8], at + 8
    if kind == _BINARY:
        size, at = _varint(content, at)
        return content[at : at + size], at + size
    if kind in (_LIST, _SET):
        count, inner = content[at] >> 4, content[at] & 15
        at += 1
        if count == 15:
            count, at = _varint(content, at)
        items = []
        for _ in range(count):
            item, at = _value(inner, content, at)
            items.append(item)
        return [inner, items], at
    if kind == _STRUCT:
        return _struct(content, at)
    raise ValueError(f"type {kind}")


def encoded(struct: Struct) -> bytes:
    """The struct as bytes. Fields are written in the given order."""
    out = bytearray()
    for number, kind, value in struct.fields:
        out += bytes([kind]) + _put_varint(number << 1 if number >= 0 else (-number << 1) - 1)
        if kind not in (_TRUE, _FALSE):
            out += _put(kind, value)
    return bytes(out) + b"\0"


def _put_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _put(kind: int, value: Any) -> bytes:
    if isinstance(value, Struct):
        return encoded(value)
    if isinstance(value, list):
        inner, items = value
        return bytes([240 | inner]) + _put_varint(len(items)) + b"".join(_put(inner, item) for item in items)
    if isinstance(value, bytes):
        return value if kind == _DOUBLE else _put_varint(len(value)) + value
    if kind in (_TRUE, _FALSE, _BYTE):
        return bytes([value % 256])
    return _put_varint((value << 1 if value >= 0 else (-value << 1) - 1) % (1 << 64))


def change(struct: Struct, chooser: random.Random, numbers: Sequence[int]) -> None:
    """Change one field somewhere in the struct: its value, type or number, or how often it is there."""
    fields: list[tuple[Struct, list[Any]]] = []
    left = [struct]
    while left:
        one = left.pop()
        for field in one.fields:
            fields.append((one, field))
            inside = field[2][1] if isinstance(field[2], list) else [field[2]]
            left += [item for item in inside if isinstance(item, Struct)]
    owner, field = chooser.choice(fields)
    how = chooser.randrange(10)
    if how == 0:
        owner.fields.remove(field)
    elif how == 1:
        owner.fields.append([*field])
    elif how == 2:
        field[0] = chooser.choice([field[0] + 1, field[0] - 1, 0, 99, -1])
    elif how == 3:
        field[2] = chooser.choice(fields)[1][2]
    elif isinstance(field[2], list):
        items = field[2][1]
        at = chooser.randrange(len(items) + 1)
        items[at : at + 1] = items[at : at + 1] * chooser.choice([0, 2, 2, 50])
        chooser.shuffle(items)
    elif isinstance(field[2], bytes):
        field[2] = chooser.choice([b"", b"\xff", b"\0" * 9, field[2][1:], field[2] * 100, b"a\x1b[2J", b"\x80" * 99])
    elif isinstance(field[2], int):
        field[2] = chooser.choice([*numbers, field[2] - 1, field[2] + 1, field[2] * 2])
