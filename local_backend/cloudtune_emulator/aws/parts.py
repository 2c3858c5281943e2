"""Parts of multipart uploads: streamed to disk a block at a time, and listed with their checksums.

moto itself would hold each part in memory several times over, and lists parts without checksums. S3's errors:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html, API_ListParts.html and ErrorResponses.html; the
words for a checksum of another kind than the upload's: https://github.com/boto/botocore/issues/3216; all seen
2026-11-21.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64encode
from typing import IO, TYPE_CHECKING, Any, Protocol
from xml.sax.saxutils import escape

from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.http import LARGEST_OBJECT, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudtune_emulator.aws.part_store import Extent
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

_BLOCK = 1 << 18
_LINE = 1 << 16
_NUMBER = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"[0-9a-fA-F]{1,12}")
_MOST = 10_000
_PAGE = 1000
_HEADER = "x-amz-checksum-"
_SHOWN = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


class _Check(Protocol):
    def update(self, block: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._found = 0

    def update(self, block: bytes | memoryview, /) -> None:
        self._found = zlib.crc32(block, self._found)

    def digest(self) -> bytes:
        return self._found.to_bytes(4, "big")


CHECKS: Mapping[str, Callable[[], _Check]] = {
    "crc32": _Crc32, "sha1": lambda: hashlib.sha1(usedforsecurity=False), "sha256": hashlib.sha256,
}  # fmt: skip
"""Checksums that are verified. CRC-32C and CRC-64/NVME, which Python does not have, are not verified."""


def checksum_in(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The checksum in a request's headers or trailers: algorithm in lowercase, and value."""
    found = [(name.removeprefix(_HEADER), value) for name, value in headers.items() if name.startswith(_HEADER)]
    return next(((name, value) for name, value in found if name not in ("type", "mode", "algorithm")), None)


def is_wrapped(headers: Mapping[str, str]) -> bool:
    """Whether the body uses Amazon's own chunked encoding, with signatures or trailers."""
    return "aws-chunked" in headers.get("content-encoding", "") or headers.get("x-amz-content-sha256", "").startswith(
        "STREAMING-"
    )


def refuse_other(name: str, found: bytes, value: str) -> None:
    """Raises BadDigest if a checksum differs from the one in the request."""
    if b64encode(found).decode() != value:
        message = f"The {name.upper()} you specified did not match the calculated checksum."
        raise AwsError(400, "BadDigest", message, protocol="s3")


def upload_part(context: EmulatorContext, call: Call) -> Reply:
    """UploadPart."""
    from cloudtune_emulator.aws.multipart_backend import Written

    number = call.query.get("partNumber", "")
    if not _NUMBER.fullmatch(number) or not 1 <= int(number) <= _MOST:
        message = f"Part number must be an integer between 1 and {_MOST}, inclusive"
        raise AwsError(400, "InvalidArgument", message, protocol="s3")
    s3, begun = context.aws.backend("s3"), _begun(context, call)
    headers = dict(call.headers)
    piece, md5 = _taken(s3.heap(begun), call, headers, begun.metadata.get("x-amz-checksum-algorithm"))
    checksum = checksum_in(headers)
    kept = None if checksum is None else (checksum[0].upper(), checksum[1])
    part = s3.keep_part(begun, int(number), Written(piece, md5, kept))
    answer = {name: value for name, value in part.response_dict.items() if name == "ETag" or name in _SHOWN}
    if checksum is not None:
        answer[_HEADER + checksum[0]] = checksum[1]
    return Reply(headers=answer, content_type="application/xml")


def _taken(heap: Any, call: Call, headers: dict[str, str], wanted: str | None) -> tuple[Extent, str]:
    """The body on disk, and its MD5. Trailers are added to the headers. Raises S3's error."""
    assert call.raw is not None
    body: IO[bytes] = call.raw.again()["wsgi.input"]
    is_chunked = is_wrapped(headers)
    piece = heap.reserve(_size(headers, is_chunked=is_chunked))
    checksum = checksum_in(headers)
    name = checksum[0] if checksum else headers.get("x-amz-trailer", "").removeprefix(_HEADER)
    if name and wanted and name != wanted.lower():
        message = f"Checksum Type mismatch occurred, expected checksum Type: {wanted.lower()}, "
        raise AwsError(400, "InvalidRequest", f"{message}actual checksum Type: {name}", protocol="s3")
    check, md5 = CHECKS[name]() if name in CHECKS else None, hashlib.md5(usedforsecurity=False)
    at, end = piece.start, piece.start + piece.size
    for block in _unwrapped(body, headers) if is_chunked else _blocks(body, piece.size):
        if at + len(block) > end:
            raise _incomplete()
        md5.update(block)
        if check is not None:
            check.update(block)
        heap.write(at, block)
        at += len(block)
    if at != end:
        raise _incomplete()
    if check is not None and (checksum := checksum_in(headers)) is not None:
        refuse_other(name, check.digest(), checksum[1])
    return piece, md5.hexdigest()


def _incomplete() -> AwsError:
    message = "You did not provide the number of bytes specified by the Content-Length HTTP header"
    return AwsError(400, "IncompleteBody", message, protocol="s3")


def _size(headers: Mapping[str, str], *, is_chunked: bool) -> int:
    """The declared length of the part. Raises S3's error."""
    length = headers.get("x-amz-decoded-content-length" if is_chunked else "content-length")
    if length is None:
        raise AwsError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.", protocol="s3")
    if not _NUMBER.fullmatch(length):
        raise AwsError(400, "InvalidArgument", "The length of the body must be a whole number.", protocol="s3")
    if int(length) > LARGEST_OBJECT:
        message = "Your proposed upload exceeds the maximum allowed size"
        raise AwsError(400, "EntityTooLarge", message, protocol="s3")
    return int(length)


def _blocks(body: Any, left: int) -> Iterator[memoryview]:
    """Read a body in blocks, reusing one buffer."""
    view = memoryview(bytearray(min(_BLOCK, left) or 1))
    while left and (count := body.readinto(view[:left])):
        yield view[:count]
        left -= count


def _unwrapped(body: IO[bytes], headers: dict[str, str]) -> Iterator[bytes]:
    """Decode a body of signed or unsigned chunks; then its trailers, which are added to the headers.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html, seen 2026-11-21.
    """
    while left := _chunk_size(body.readline(_LINE)):
        while left and (block := body.read(min(left, _BLOCK))):
            yield block
            left -= len(block)
        body.readline(_LINE)
    while line := body.readline(_LINE).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()


def _chunk_size(line: bytes) -> int:
    """The size in a chunk's first line; 0 at the end of the body. Raises S3's error."""
    size = line.partition(b";")[0].strip()
    if line and (not line.endswith(b"\n") or not _CHUNK.fullmatch(size)):
        raise AwsError(400, "InvalidChunkSizeError", "The size of a chunk is not a hexadecimal number.", protocol="s3")
    return int(size or b"0", 16)


def list_parts(context: EmulatorContext, call: Call) -> Reply:
    """ListParts."""
    begun = _begun(context, call)
    after, most = _whole(call, "part-number-marker", 0), min(_whole(call, "max-parts", _PAGE), _PAGE)
    with context.aws.backend("s3").arriving:
        parts = [begun.parts[number] for number in sorted(begun.parts) if number > after]
    shown = parts[:most]
    fields: dict[str, Any] = {
        "Bucket": call.body["Bucket"], "Key": call.body["Key"], "UploadId": begun.id,
        "ChecksumAlgorithm": begun.metadata.get("x-amz-checksum-algorithm"),
        "ChecksumType": begun.metadata.get("x-amz-checksum-type"), "StorageClass": begun.storage or "STANDARD",
        "PartNumberMarker": after, "NextPartNumberMarker": shown[-1].name if shown else 0, "MaxParts": most,
        "IsTruncated": str(len(parts) > most).lower(),
    }  # fmt: skip
    text = _elements(fields) + "".join(f"<Part>{_elements(_part(part))}</Part>" for part in shown)
    body = '<?xml version="1.0" encoding="UTF-8"?>\n<ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return Reply(body=f"{body}{text}</ListPartsResult>".encode(), content_type="application/xml")


def _part(part: Any) -> dict[str, Any]:
    algorithm = part.checksum_algorithm
    return {
        "PartNumber": part.name, "LastModified": part.last_modified_ISO8601, "ETag": part.etag, "Size": part.size,
        **({f"Checksum{algorithm}": part.checksum_value} if algorithm else {}),
    }  # fmt: skip


def _elements(fields: Mapping[str, Any]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items() if value is not None)


def _whole(call: Call, name: str, default: int) -> int:
    value = call.query.get(name) or str(default)
    if not _NUMBER.fullmatch(value):
        raise AwsError(400, "InvalidArgument", f"Provided {name} not an integer or within integer range", protocol="s3")
    return int(value)


def _begun(context: EmulatorContext, call: Call) -> Any:
    """The upload. Raises S3's error if it was completed or aborted, or never existed."""
    bucket = context.aws.backend("s3").buckets.get(call.body["Bucket"])
    if bucket is None:
        raise AwsError(404, "NoSuchBucket", "The specified bucket does not exist", protocol="s3")
    found = bucket.multiparts.get(call.query.get("uploadId"))
    if found is None:
        raise no_upload()
    return found


def no_upload() -> AwsError:
    """The error for an upload that does not exist."""
    message = "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart "
    return AwsError(404, "NoSuchUpload", message + "upload might have been aborted or completed.", protocol="s3")
