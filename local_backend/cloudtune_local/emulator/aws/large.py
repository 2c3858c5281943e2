"""moto's S3, with multipart uploads that lie on disk: moto itself would hold a large one in memory several times over.

Parts are moved to disk as they arrive, and joined there. Only imported once somebody uses S3.
"""

from __future__ import annotations

import binascii
import hashlib
import tempfile
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML
from moto.s3.models import S3_UPLOAD_PART_MIN_SIZE, S3Backend
from moto.s3.utils import compute_checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_STREAMED = ("CRC32",)
"""Checksums of whole objects that can be taken a piece at a time."""


class LargeS3(S3Backend):  # type: ignore[misc] # moto has no types of its own
    """See the module."""

    def upload_part(self, bucket_name: str, multipart_id: str, part_id: int, value: bytes) -> Any:
        """Keep the part on disk."""
        part = super().upload_part(bucket_name, multipart_id, part_id, value)
        part._value_buffer.rollover()
        return part

    def complete_multipart_upload(self, bucket_name: str, multipart_id: str, body: Iterator[tuple[int, str]]) -> Any:
        """Join the parts on disk. Readers are kept out meanwhile, by the caller's lock."""
        upload: Any = self.get_bucket(bucket_name).multiparts[multipart_id]
        algorithm, kind = (upload.metadata.get(f"x-amz-checksum-{name}") for name in ("algorithm", "type"))
        if kind == "FULL_OBJECT" and algorithm not in _STREAMED:
            return super().complete_multipart_upload(bucket_name, multipart_id, body)
        parts = _checked(upload, list(body))
        etag = f"{hashlib.md5(b''.join(_md5(part) for part in parts)).hexdigest()}-{len(parts)}"  # noqa: S324 - S3's own
        told = _checksum(parts, algorithm, kind)
        joined, size = _joined(parts)
        upload.complete = lambda _: (b"", etag, told)
        key: Any = super().complete_multipart_upload(bucket_name, multipart_id, iter(()))  # which closes the parts
        with key.lock:
            key._value_buffer.close()
            key._value_buffer, key.contentsize = joined, size
        return key


def _checked(upload: Any, named: list[tuple[int, str]]) -> list[Any]:
    """The parts that are named, in order. Raises what S3 answers where they do not fit."""
    parts: list[Any] = []
    for number, etag in named:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart
        if parts and parts[-1].contentsize < S3_UPLOAD_PART_MIN_SIZE:
            raise EntityTooSmall
        parts.append(part)
    if not parts:
        raise MalformedXML
    return parts


def _md5(part: Any) -> bytes:
    return bytes.fromhex(part.etag.strip('"'))


def _checksum(parts: list[Any], algorithm: str | None, kind: str | None) -> tuple[str, str, int] | None:
    """Of the object: over the parts' own, or over all bytes."""
    if algorithm is None:
        return None
    if kind == "FULL_OBJECT":
        whole = 0
        for part in parts:
            for block in _blocks(part):
                whole = binascii.crc32(block, whole)
        return kind, b64encode(whole.to_bytes(4, "big")).decode(), 1
    each = b"".join(compute_checksum(part.value, algorithm, encode_base64=False) for part in parts)
    return "COMPOSITE", compute_checksum(each, algorithm).decode(), len(parts)


def _blocks(part: Any) -> Iterator[bytes]:
    with part.lock:
        part._value_buffer.seek(0)
        while block := part._value_buffer.read(_BLOCK):
            yield block


def _joined(parts: list[Any]) -> tuple[Any, int]:
    """All bytes in one temporary file, of the kind that moto keeps objects in."""
    joined: Any = tempfile.SpooledTemporaryFile(max_size=1)  # noqa: SIM115 - the object keeps it
    for part in parts:
        for block in _blocks(part):
            joined.write(block)
    return joined, sum(part.contentsize for part in parts)
