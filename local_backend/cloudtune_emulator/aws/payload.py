"""The body of a signed request, verified against its hash or its chunks' signatures as it is read.

Values of ``x-amz-content-sha256``: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and
sigv4-streaming-trailers.html, seen 2026-11-29. At most a megabyte of a body is held in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import tempfile
from typing import IO, TYPE_CHECKING, Any

from werkzeug.wsgi import get_input_stream

from cloudtune_emulator.aws import sigv4
from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.http import LARGEST_JSON, SPOOL, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Request

    from cloudtune_emulator.aws.sigv4 import Scope

UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_CHUNKED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_CHUNKED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
MARKERS = frozenset({UNSIGNED, _UNSIGNED_TRAILER, _CHUNKED, _CHUNKED_TRAILER})
"""Values that are no hash."""
_BLOCK = 1 << 18
_MEMORY = 1 << 20
_LINE = 1 << 12
_LARGEST_CHUNK = 64 << 20
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]{64})\r?\n")


def spooled(request: Request) -> str:
    """Read the body, to disk if it is large, and return its SHA-256. The request can be read again.

    Raises ApiError where the body is larger than that of any service but S3, or arrives too slowly.
    """
    found, digest = tempfile.SpooledTemporaryFile(_MEMORY), hashlib.sha256()  # noqa: SIM115 - the request's from here on
    request.environ[SPOOL] = found
    for block in blocks(get_input_stream(request.environ), LARGEST_JSON):
        digest.update(block)
        found.write(block)
    found.seek(0)
    _replace(request, found)
    return digest.hexdigest()


def guard(request: Request, declared: str, signer: ChunkSigner) -> None:
    """Pass the body on only if it matches the signature.

    The body is verified while it is read. The last bytes of a body that differs from its hash raise AwsError; so does
    each chunk with a wrong signature, before any of its bytes are returned.
    """
    if declared in (UNSIGNED, _UNSIGNED_TRAILER):
        return
    if declared in (_CHUNKED, _CHUNKED_TRAILER):
        source = get_input_stream(request.environ)
        pieces = signer.verified(source, has_trailer=declared == _CHUNKED_TRAILER)
        _replace(request, io.BufferedReader(ChunkedBody(pieces), _BLOCK))
    elif request.content_length or "HTTP_TRANSFER_ENCODING" in request.environ:
        source = get_input_stream(request.environ)
        _replace(request, io.BufferedReader(HashedBody(source, declared, request.content_length), _BLOCK))
    elif declared != sigv4.EMPTY_SHA256:
        raise _other_hash()


def _replace(request: Request, body: Any) -> None:
    # The request creates its stream at the first use, which is after this.
    request.environ["wsgi.input"], request.environ["wsgi.input_terminated"] = body, True


def _other_hash() -> AwsError:
    message = "The provided 'x-amz-content-sha256' header does not match what was computed."
    return AwsError(400, "XAmzContentSHA256Mismatch", message, protocol="s3")


class HashedBody(io.RawIOBase):
    """A stream that raises AwsError at its end if its SHA-256 is not the declared one."""

    def __init__(self, source: IO[bytes], declared: str, size: int | None) -> None:
        self._source, self._declared, self._left = source, declared, size
        self._digest = hashlib.sha256()
        self._is_done = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read a block. Raises AwsError instead of returning the last block of a body that differs."""
        if self._is_done:
            return 0
        block = self._source.read(len(buffer) if self._left is None else min(len(buffer), self._left))
        self._digest.update(block)
        if self._left is not None:
            self._left -= len(block)
        if not block or self._left == 0:
            self._is_done = True
            if not hmac.compare_digest(self._digest.hexdigest(), self._declared):
                raise _other_hash()
        buffer[: len(block)] = block
        return len(block)


class ChunkedBody(io.RawIOBase):
    """A stream of pieces that were verified one by one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read a block. Raises AwsError where the next piece is not what was signed."""
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


class ChunkSigner:
    """Checks the signatures of a body in chunks; each covers the one before it."""

    def __init__(self, secret: str, timestamp: str, scope: Scope, seed: str) -> None:
        self._secret, self._timestamp, self._scope, self._last = secret, timestamp, scope, seed

    def verified(self, body: IO[bytes], *, has_trailer: bool) -> Iterator[bytes]:
        """Yield a body as it was sent, each chunk once its signature is verified. Raises AwsError if one is wrong."""
        size = -1
        while size:
            line = body.readline(_LINE)
            head = _CHUNK.fullmatch(line)
            if head is None:
                raise _malformed()
            size = int(head[1], 16)
            if size > _LARGEST_CHUNK:
                raise _malformed()
            with tempfile.SpooledTemporaryFile(_MEMORY) as held:
                self._next("PAYLOAD", f"{sigv4.EMPTY_SHA256}\n{_chunk(body, size, held)}", head[2].decode())
                yield line
                while block := held.read(_BLOCK):
                    yield block
        end = self._trailer(body) if has_trailer else _line_end(body)
        if body.read(1):
            raise _malformed()
        yield end

    def _trailer(self, body: IO[bytes]) -> bytes:
        lines, signature, sent = b"", "", b""
        while line := body.readline(_LINE):
            sent += line
            if len(sent) > _LINE or not line.strip():
                break
            name, _, value = line.strip().partition(b":")
            if name.lower() == b"x-amz-trailer-signature":
                signature = value.strip().decode("latin-1")
            else:
                lines += name.lower() + b":" + value.strip() + b"\n"
        self._next("TRAILER", hashlib.sha256(lines).hexdigest(), signature)
        return sent

    def _next(self, kind: str, covered: str, given: str) -> None:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self._timestamp}\n{self._scope}\n{self._last}\n{covered}"
        self._last = sigv4.sign(self._secret, self._scope, text)
        if not hmac.compare_digest(given.encode(), self._last.encode()):
            message = "The signature of a chunk does not match what was computed."
            raise AwsError(403, "SignatureDoesNotMatch", message, protocol="s3")


def _chunk(body: IO[bytes], size: int, held: IO[bytes]) -> str:
    """Copy a chunk and its line ending, seek to its start, and return the SHA-256 of its data."""
    digest = hashlib.sha256()
    while size and (block := body.read(min(size, _BLOCK))):
        digest.update(block)
        held.write(block)
        size -= len(block)
    if size:
        raise _malformed()
    if held.tell():
        held.write(_line_end(body))
    held.seek(0)
    return digest.hexdigest()


def _line_end(body: IO[bytes]) -> bytes:
    line = body.readline(_LINE)
    if line.strip(b"\r\n"):
        raise _malformed()
    return line


def _malformed() -> AwsError:
    return AwsError(400, "IncompleteBody", "The request body is not in signed chunks.", protocol="s3")
