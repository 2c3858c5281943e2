"""Damaged files: a good file of each format, and copies of it with bytes changed, cut out, repeated or put in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAT = [
    {"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i} \u00f1"}]}
    for i in range(12)
]
WORDS = [{"prompt": f"question {i}", "completion": f"answer, \u201c{i}\u201d"} for i in range(12)]
SCRAPS = [
    b"\x00", b"\xff" * 4, b'"', b"\\", b"[" * 50, b"]", b"{", b"}", b",", b"\n", b"\r", b"\\ud800", b"NaN", b"1e999",
    b"9" * 400, b"\xef\xbb\xbf", b'"k\\"":1,', b"PAR1", b"ARROW1", b"\x1f\x8b", b"\xff\xff\xff\x7f", b"\x80" * 9,
]  # fmt: skip


def _table(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _zstd(content: bytes) -> bytes:
    import pyarrow as pa

    return pa.compress(content, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


_LINES = b"".join(json.dumps(row).encode() + b"\n" for row in CHAT)
GOOD: dict[str, Callable[[], bytes]] = {
    "rows.jsonl": lambda: _LINES,
    "rows.json": lambda: json.dumps(CHAT, indent=1).encode(),
    "rows.csv": lambda: _table(WORDS, ","),
    "rows.tsv": lambda: _table(WORDS, "\t"),
    "rows.txt": lambda: b"\n\n".join(row["prompt"].encode() for row in WORDS),
    "rows.jsonl.gz": lambda: gzip.compress(_LINES),
    "rows.json.zst": lambda: _zstd(json.dumps(CHAT).encode()),
}
"""A good file for each reader, by name."""


def mutants(good: bytes, count: int, seed: int) -> Iterator[bytes]:
    """So many damaged copies."""
    chooser = random.Random(seed)
    for _ in range(count):
        content = bytearray(good)
        for _ in range(chooser.choice([1, 1, 1, 2, 4, 16])):
            at = chooser.randrange(len(content) + 1)
            change = chooser.randrange(6)
            if change == 0 and at < len(content):
                content[at] ^= 1 << chooser.randrange(8)
            elif change == 1 and at < len(content):
                content[at] = chooser.randrange(256)
            elif change == 2:
                del content[at : at + chooser.choice([1, 4, 8, 100])]
            elif change == 3:
                content[at:at] = chooser.choice(SCRAPS)
            elif change == 4:
                content[at:at] = content[at : at + chooser.choice([1, 8, 64])]
            else:
                scrap = chooser.choice(SCRAPS)
                content[at : at + len(scrap)] = scrap
        yield bytes(content)
