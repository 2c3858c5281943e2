"""The body of a signed request: held against its hash, or against the signatures of its chunks, as it is read.

Values of ``x-amz-content-sha256``: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and
sigv4-streaming-trailers.html, seen 2026-11-29. No body is held in memory beyond a megabyte.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import tempfile
from typing import IO, TYPE_CHECKING, Any

from werkzeug.wsgi import get_input_stream

from cloudtune_local.emulator.aws import sigv4
from cloudtune_local.emulator.aws.errors import AwsError
from cloudtune_local.emulator.wire import SPOOL

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_local.emulator.aws.sigv4 import Scope

UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_CHUNKED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_CHUNKED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
MARKERS = frozenset({UNSIGNED, _UNSIGNED_TRAILER, _CHUNKED, _CHUNKED_TRAILER})
"""Values that are no hash."""
_BLOCK = 1 << 18
_MEMORY = 1 << 20
_LINE = 1 << 12
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]{64})\r?\n")


def spooled(request: Request) -> str:
    """Read the body, on disk where it is large, and return its SHA-256. The request can be read again."""
    found, digest = tempfile.SpooledTemporaryFile(_MEMORY), hashlib.sha256()  # noqa: SIM115 - the request's from here on
    source = get_input_stream(request.environ)
    while block := source.read(_BLOCK):
        digest.update(block)
        found.write(block)
    found.seek(0)
    _replace(request, found)
    request.environ[SPOOL] = found
    return digest.hexdigest()


def guard(request: Request, declared: str, signer: ChunkSigner) -> None:
    """Let the body through only if it is what was signed.

    A body with a hash is checked while it is read: the last bytes raise AwsError if it differs. One in signed chunks is
    checked here.
    """
    if declared in (UNSIGNED, _UNSIGNED_TRAILER):
        return
    if declared in (_CHUNKED, _CHUNKED_TRAILER):
        spooled(request)
        body: IO[bytes] = request.environ["wsgi.input"]
        signer.check(body, has_trailer=declared == _CHUNKED_TRAILER)
        body.seek(0)
        return
    if request.content_length or "HTTP_TRANSFER_ENCODING" in request.environ:
        source = get_input_stream(request.environ)
        _replace(request, io.BufferedReader(HashedBody(source, declared, request.content_length), _BLOCK))
    elif declared != sigv4.EMPTY_SHA256:
        raise _other_hash()


def _replace(request: Request, body: Any) -> None:
    # The request makes its stream at the first use, which is after this.
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
        """Read a block. Raises AwsError instead of giving the last one of a body that differs."""
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


class ChunkSigner:
    """Checks the signatures of a body in chunks; each covers the one before it."""

    def __init__(self, secret: str, timestamp: str, scope: Scope, seed: str) -> None:
        self._secret, self._timestamp, self._scope, self._last = secret, timestamp, scope, seed

    def check(self, body: IO[bytes], *, has_trailer: bool) -> None:
        """Read a body to its end. Raises AwsError where a signature, or the form, is wrong."""
        size = -1
        while size:
            head = _CHUNK.fullmatch(body.readline(_LINE))
            if head is None:
                raise _malformed()
            size, digest = int(head[1], 16), hashlib.sha256()
            left = size
            while left and (block := body.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
            if left or (size and body.readline(_LINE).strip(b"\r\n")):
                raise _malformed()
            self._next("PAYLOAD", f"{sigv4.EMPTY_SHA256}\n{digest.hexdigest()}", head[2].decode())
        if has_trailer:
            self._check_trailer(body)

    def _check_trailer(self, body: IO[bytes]) -> None:
        lines, signature = b"", ""
        while line := body.readline(_LINE).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"x-amz-trailer-signature":
                signature = value.strip().decode("latin-1")
            else:
                lines += name.lower() + b":" + value.strip() + b"\n"
        self._next("TRAILER", hashlib.sha256(lines).hexdigest(), signature)

    def _next(self, kind: str, covered: str, given: str) -> None:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self._timestamp}\n{self._scope}\n{self._last}\n{covered}"
        self._last = sigv4.sign(self._secret, self._scope, text)
        if not hmac.compare_digest(given.encode(), self._last.encode()):
            message = "The signature of a chunk does not match what was computed."
            raise AwsError(403, "SignatureDoesNotMatch", message, protocol="s3")


def _malformed() -> AwsError:
    return AwsError(400, "IncompleteBody", "The request body is not in signed chunks.", protocol="s3")
