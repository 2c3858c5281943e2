"""Damaged copies of Parquet, Arrow and Excel files, with changes that keep most of the structure."""

from __future__ import annotations

import io
import random
import zipfile
from typing import TYPE_CHECKING

from tests.unit.data import thrift
from tests.unit.data.mutants import mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NUMBERS = (
    0, 1, 2, 7, 8, 63, 64, 127, 128, 255, 256, 1023, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
    1 << 40, (1 << 62) + 1, (1 << 63) - 1, -1, -2, -8, -128, -(1 << 31), -(1 << 63),
)  # fmt: skip
_XML = ("A1", "B2", "XFD1048576", "&amp;", "&#0;", "&#xD800;", "]]>", "<![CDATA[", "<!--", '"', "<c>", "</row>",
        't="e"', 't="d"', "1e999", "-1", "NaN", "99999999999999999999", "<f>A1</f>", "\x00", "\u202e")  # fmt: skip


def columnar_mutants(kind: str, good: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """So many damaged copies."""
    chooser = random.Random(f"{kind} {seed}")
    changes: list[Callable[[bytes, random.Random], bytes]] = [_bytes, _cut, _number, _number, _swap, _metadata]
    if kind == "parquet":
        changes += [_footer, _footer, _page, _page]
    elif kind == "xlsx":
        changes = [_bytes, _number, _cut, _part, _part, _part, _part]
    for _ in range(count):
        content = chooser.choice(good)
        for _ in range(chooser.choice([1, 1, 1, 2, 3])):
            content = chooser.choice(changes)(content, chooser) or content
        yield content


def _bytes(content: bytes, chooser: random.Random) -> bytes:
    return next(mutants(content, 1, chooser.randrange(1 << 32)))


def _cut(content: bytes, chooser: random.Random) -> bytes:
    """The end is missing, or a part before the footer."""
    at, end = sorted(chooser.randrange(len(content) + 1) for _ in range(2))
    return content[:at] if chooser.random() < 0.5 else content[:at] + content[end:]


def _number(content: bytes, chooser: random.Random, start: int = 0, end: int | None = None) -> bytes:
    """A number at an aligned place has another value."""
    width = chooser.choice([1, 2, 4, 4, 8])
    places = range(start - start % -width, (len(content) if end is None else end) - width + 1, width)
    if not places:
        return content
    at = chooser.choice(places)
    old = int.from_bytes(content[at : at + width], "little")
    new = chooser.choice([*NUMBERS, old - 1, old + 1, old * 2, old ^ (1 << chooser.randrange(8 * width))])
    return content[:at] + (new % (1 << (8 * width))).to_bytes(width, "little") + content[at + width :]


def _swap(content: bytes, chooser: random.Random) -> bytes:
    """Two blocks of 8 bytes or a multiple are exchanged."""
    size = chooser.choice([8, 16, 64, 256])
    if len(content) < 3 * size:
        return content
    first, second = sorted(chooser.sample(range(len(content) // size), 2))
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


def _metadata(content: bytes, chooser: random.Random) -> bytes:
    """A number in the footer or in the head of an Arrow message, which holds offsets and sizes."""
    marks = [at for at in range(0, len(content) - 8, 8) if content[at : at + 4] == b"\xff\xff\xff\xff"]
    if content[:4] == b"PAR1" or not marks or chooser.random() < 0.3:
        size = int.from_bytes(content[-8:-4] if content[:4] == b"PAR1" else content[-10:-6], "little")
        return _number(content, chooser, max(0, len(content) - min(size, 5000) - 10))
    start = chooser.choice(marks)
    return _number(
        content, chooser, start, start + 8 + min(int.from_bytes(content[start + 4 : start + 8], "little"), 5000)
    )


def _footer(content: bytes, chooser: random.Random) -> bytes:
    """One field of Parquet's footer is changed, removed, repeated or of another type."""
    size = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - size
    if content[-4:] != b"PAR1" or start < 4:
        return content
    try:
        footer, _ = thrift.decoded(content[start:-8])
        thrift.change(footer, chooser, NUMBERS)
        new = thrift.encoded(footer)
    except (IndexError, ValueError, RecursionError):
        return content
    return content[:start] + new + len(new).to_bytes(4, "little") + b"PAR1"


def _page(content: bytes, chooser: random.Random) -> bytes:
    """One field of the head of a page is changed, and the offsets in the footer still fit."""
    size = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - size
    try:
        footer, _ = thrift.decoded(content[start:-8])
        columns = [column.get(3) for group in footer.get(4)[1] for column in group.get(1)[1]]
        at = chooser.choice([place for one in columns for key in (9, 11) if isinstance(place := one.get(key), int)])
        head, length = thrift.decoded(content[at:start])
        thrift.change(head, chooser, NUMBERS)
        new = thrift.encoded(head)
        grown = len(new) - length
        for one in columns:
            if at in (one.get(9), one.get(11)):
                one.set(7, one.get(7) + grown)
            for key in (9, 11):
                if isinstance(place := one.get(key), int) and place > at:
                    one.set(key, place + grown)
        end = thrift.encoded(footer)
    except (IndexError, ValueError, TypeError, AttributeError, RecursionError):
        return content  # an earlier change broke the footer
    return content[:at] + new + content[at + length : start] + end + len(end).to_bytes(4, "little") + b"PAR1"


def _part(content: bytes, chooser: random.Random) -> bytes:
    """A part of a workbook is changed, and the archive is valid."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # noqa: BLE001 - an earlier change broke the archive
        return content
    if not parts:
        return content
    name = chooser.choice(list(parts))
    text = parts[name].decode("utf-8", "replace")
    for _ in range(chooser.choice([1, 1, 2, 5])):
        at = chooser.randrange(len(text) + 1)
        end = at + chooser.choice([0, 1, 2, 5, 30])
        text = text[:at] + chooser.choice([*_XML, text[at:end] * 2, str(chooser.choice(NUMBERS))]) + text[end:]
    parts[name] = text.encode("utf-8", "replace")
    if chooser.random() < 0.1:
        parts.pop(chooser.choice(list(parts)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chooser.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for one, inside in parts.items():
            archive.writestr(one or "x", inside)
    return out.getvalue()
