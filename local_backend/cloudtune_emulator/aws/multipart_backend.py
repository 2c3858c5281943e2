"""moto's S3 with multipart uploads on disk: moto itself would hold a large upload in memory several times over.

Imported only once S3 is used.
"""

from __future__ import annotations

import binascii
import hashlib
import threading
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, NamedTuple

from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML, NoSuchUpload
from moto.s3.models import S3_UPLOAD_PART_MIN_SIZE, S3Backend
from moto.s3.utils import compute_checksum

from cloudtune_emulator.aws.part_store import Extent, ExtentReader, PartStore

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_STREAMED = ("CRC32",)
"""Checksums of whole objects that can be computed incrementally."""


class Written(NamedTuple):
    """The bytes of a part that is not visible yet."""

    piece: Extent
    md5: str
    checksum: tuple[str, str] | None = None
    """Algorithm as S3 writes it (``CRC32``) and value in base64, where the client sent one."""


class LargeS3(S3Backend):  # type: ignore[misc] # moto has no types of its own
    """See the module."""

    def __init__(self, *names: Any, **more: Any) -> None:
        super().__init__(*names, **more)
        self.arriving = threading.Lock()
        """Held while a part is added or parts are listed."""

    def heap(self, upload: Any) -> PartStore:
        """The heap of an upload's parts."""
        with self.arriving:
            if not hasattr(upload, "heap"):
                upload.heap = PartStore()
            found: PartStore = upload.heap
            return found

    def keep_part(self, upload: Any, number: int, written: Written) -> Any:
        """Make a part visible. It replaces an earlier upload of the same part number."""
        with self.arriving:
            part = upload.set_part(number, b"")
            part._value_buffer.close()
            part._value_buffer, part.contentsize = ExtentReader([written.piece]), written.piece.size
            part._etag = written.md5
            part.checksum_algorithm, part.checksum_value = written.checksum or (None, None)
            return part

    def upload_part(self, bucket_name: str, multipart_id: str, part_id: int, value: bytes) -> Any:
        """Store the part on disk."""
        upload = self._upload(bucket_name, multipart_id)
        written = Written(_laid(self.heap(upload), [value], len(value)), hashlib.md5(value).hexdigest())  # noqa: S324
        return self.keep_part(upload, part_id, written)

    def complete_multipart_upload(self, bucket_name: str, multipart_id: str, body: Iterator[tuple[int, str]]) -> Any:
        """Concatenate the parts. The caller's lock excludes readers meanwhile."""
        upload = self._upload(bucket_name, multipart_id)
        algorithm, kind = (upload.metadata.get(f"x-amz-checksum-{name}") for name in ("algorithm", "type"))
        if kind == "FULL_OBJECT" and algorithm not in _STREAMED:
            return super().complete_multipart_upload(bucket_name, multipart_id, body)
        parts = _checked(upload, list(body))
        etag = f"{hashlib.md5(b''.join(_md5(part) for part in parts)).hexdigest()}-{len(parts)}"  # noqa: S324 - S3's own
        checksum = _checksum(parts, algorithm, kind)
        joined = ExtentReader([piece for part in parts for piece in self._pieces(upload, part)])
        upload.complete = lambda _: (b"", etag, checksum)
        key: Any = super().complete_multipart_upload(bucket_name, multipart_id, iter(()))  # which closes the parts
        with key.lock:
            key._value_buffer.close()
            key._value_buffer, key.contentsize = joined, joined.size
        return key

    def _upload(self, bucket_name: str, multipart_id: str) -> Any:
        """Also where another query parameter selects another operation: moto reads the upload id first."""
        upload = self.get_bucket(bucket_name).multiparts.get(multipart_id)
        if upload is None:
            raise NoSuchUpload(upload_id=multipart_id)
        return upload

    def _pieces(self, upload: Any, part: Any) -> tuple[Extent, ...]:
        """The location of a part; moto holds the parts that were copied from another object."""
        if isinstance(part._value_buffer, ExtentReader):
            return tuple(part._value_buffer.pieces)
        return (_laid(self.heap(upload), _blocks(part), part.contentsize),)


def _laid(heap: PartStore, blocks: Any, size: int) -> Extent:
    piece = heap.reserve(size)
    at = piece.start
    for block in blocks:
        heap.write(at, block)
        at += len(block)
    return piece


def _checked(upload: Any, named: list[tuple[int, str]]) -> list[Any]:
    """The named parts, in order. Raises S3's error where they are not valid."""
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
    """The checksum of the object: over the parts' checksums, or over all bytes."""
    if algorithm is None:
        return None
    if kind == "FULL_OBJECT":
        whole = 0
        for part in parts:
            for block in _blocks(part):
                whole = binascii.crc32(block, whole)
        return kind, b64encode(whole.to_bytes(4, "big")).decode(), 1
    each = b"".join(_of_part(part, algorithm) for part in parts)
    return "COMPOSITE", compute_checksum(each, algorithm).decode(), len(parts)


def _of_part(part: Any, algorithm: str) -> bytes:
    """A part's checksum: the one verified on arrival, else computed now."""
    if part.checksum_algorithm == algorithm:
        return b64decode(part.checksum_value)
    taken: bytes = compute_checksum(part.value, algorithm, encode_base64=False)
    return taken


def _blocks(part: Any) -> Iterator[bytes]:
    with part.lock:
        part._value_buffer.seek(0)
        while block := part._value_buffer.read(_BLOCK):
            yield block
