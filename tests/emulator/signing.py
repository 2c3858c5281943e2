"""Requests signed by botocore's own signers, and bodies in signed chunks as SDKs in Java and JavaScript send them."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_emulator import Emulator

REGION = "us-east-1"
_EMPTY = hashlib.sha256(b"").hexdigest()


def credentials(emulator: Emulator, **changes: str) -> Credentials:
    """The emulator's key, with changes."""
    settings = emulator.settings
    return Credentials(**{"access_key": settings.aws_key, "secret_key": settings.aws_secret} | changes)


def signed_headers(
    emulator: Emulator,
    method: str,
    url: str,
    *,
    service: str = "s3",
    data: bytes = b"",
    headers: Mapping[str, str] | None = None,
    **changes: str,
) -> dict[str, str]:
    """The headers of a signed request; ``changes`` are of the credentials."""
    request = AWSRequest(method, url, dict(headers or {}), data)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(credentials(emulator, **changes), service, REGION).add_auth(request)
    return dict(request.headers.items())


def in_signed_chunks(
    emulator: Emulator,
    method: str,
    url: str,
    data: bytes,
    *,
    length: int | None = None,
    trailers: Mapping[str, str] | None = None,
    size: int = 65_536,
    break_chunk: int | None = None,
) -> tuple[dict[str, str], bytes]:
    """Headers and body. ``break_chunk`` changes a byte of that chunk after signing."""
    marker = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailers else "")

    class Signer(S3SigV4Auth):
        def payload(self, request: Any) -> str:
            return marker

    headers = {
        "x-amz-decoded-content-length": str(len(data) if length is None else length),
        "Content-Encoding": "aws-chunked", "X-Amz-Content-SHA256": marker,
    }  # fmt: skip
    if trailers:
        headers["x-amz-trailer"] = ",".join(trailers)
    request = AWSRequest(method, url, headers)
    signer = Signer(credentials(emulator), "s3", REGION)
    signer.add_auth(request)
    sent = dict(request.headers.items())
    last = sent["Authorization"].rpartition("Signature=")[2]
    moment = sent["X-Amz-Date"]

    def follow(kind: str, covered: str) -> str:
        text = f"AWS4-HMAC-SHA256-{kind}\n{moment}\n{moment[:8]}/{REGION}/s3/aws4_request\n{last}\n{covered}"
        key = b"AWS4" + emulator.settings.aws_secret.encode()
        for part in (moment[:8], REGION, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()

    body = b""
    for number, start in enumerate([*range(0, len(data), size), len(data)]):
        piece = data[start : start + size]
        last = follow("PAYLOAD", f"{_EMPTY}\n{hashlib.sha256(piece).hexdigest()}")
        if number == break_chunk:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        body += b"%x;chunk-signature=%s\r\n" % (len(piece), last.encode()) + piece + (b"\r\n" if piece else b"")
    if trailers:
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        last = follow("TRAILER", hashlib.sha256(lines.encode()).hexdigest())
        body += lines.replace("\n", "\r\n").encode() + f"x-amz-trailer-signature:{last}\r\n".encode()
    return sent, body + b"\r\n"
