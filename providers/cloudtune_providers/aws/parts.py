"""Splits a large file into the parts of a multipart upload, and recognizes parts that have arrived."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html, seen 2026-11-21: 5 MiB to 5 GiB each, at most 10,000.
PART_BYTES = 8 * 1024 * 1024
MOST_PARTS = 10_000
ALGORITHM = "CRC32"
"""The checksum of each part. It takes a quarter of the time of SHA-256, which verifies the whole file."""


class Part(NamedTuple):
    """A part of a file."""

    number: int
    """Counted from 1."""
    start: int
    size: int


def cut(size: int) -> list[Part]:
    """Return the parts of a file of that size. The same size gives the same parts, so another process can continue."""
    each = PART_BYTES
    while each * MOST_PARTS < size:
        each *= 2
    return [Part(number, start, min(each, size - start)) for number, start in enumerate(range(0, size, each), 1)]


def read_parts(path: Path) -> Iterator[tuple[Part, bytes]]:
    """Each part and its bytes, in order: the file is read once. If the file shrinks meanwhile, parts are short."""
    with path.open("rb") as file:
        for part in cut(path.stat().st_size):
            yield part, file.read(part.size)


def checksum(content: bytes) -> str:
    """A part's checksum by `ALGORITHM`, in S3's format."""
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode("ascii")


def is_same(there: dict[str, Any], content: bytes, mark: str) -> bool:
    """Whether an arrived part has these bytes: by its size and checksum, else by its size and MD5."""
    if there.get("Size") != len(content):
        return False
    if reported := there.get(f"Checksum{ALGORITHM}"):
        return bool(reported == mark)
    # An ETag is the MD5 unless a KMS key encrypts the part; then the part is sent again.
    return str(there.get("ETag", "")).strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()
