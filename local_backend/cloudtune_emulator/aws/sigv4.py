"""Signature Version 4, computed from a request as it arrived.

The rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. S3's own rules,
by which paths are encoded once and not normalized:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html; both seen 2026-11-29.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-_.~"


class Scope(NamedTuple):
    """The scope of a signing key: ``20261129/us-east-1/s3/aws4_request``."""

    date: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class SignedRequest(NamedTuple):
    """The parts of a request that a signature covers."""

    method: str
    path: str
    """As it was sent, still escaped."""
    query: str
    """As it was sent, without ``?`` and without the signature itself."""
    headers: Sequence[tuple[str, str]]
    """Names in lowercase, in the order of ``SignedHeaders``; values as WSGI has them, decoded as Latin-1."""
    payload_hash: str


def signature(secret: str, timestamp: str, scope: Scope, request: SignedRequest) -> str:
    """Return the signature that the request must carry."""
    digest = hashlib.sha256(canonical_request(request, is_s3=scope.service == "s3")).hexdigest()
    return sign(secret, scope, f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}")


def sign(secret: str, scope: Scope, text: str) -> str:
    """Sign a string with the scope's key."""
    key = f"AWS4{secret}".encode()
    for part in (*scope, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def canonical_request(request: SignedRequest, *, is_s3: bool) -> bytes:
    """Return the canonical form that is hashed."""
    lines = (
        request.method.encode(),
        canonical_path(request.path, is_s3=is_s3).encode(),
        canonical_query(request.query).encode(),
        *(f"{name}:{' '.join(value.split())}".encode("latin-1", "replace") for name, value in request.headers),
        b"",
        ";".join(name for name, _ in request.headers).encode(),
        request.payload_hash.encode(),
    )
    return b"\n".join(lines)


def canonical_path(path: str, *, is_s3: bool) -> str:
    """S3: escaped once, including slashes in a segment. Other services: normalized, and escaped a second time."""
    if is_s3:
        return "/".join(quote(unquote_to_bytes(segment), safe=_UNRESERVED) for segment in path.split("/")) or "/"
    return quote(_normalized(path), safe=f"/{_UNRESERVED}")


def _normalized(path: str) -> str:
    """Remove empty segments, ``.`` and ``..``."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return f"/{'/'.join(kept)}" + ("/" if kept and path.endswith("/") else "")


def canonical_query(query: str) -> str:
    """Escape every name and value, and sort by name and then by value."""
    pairs = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        pairs.append(tuple(quote(unquote_to_bytes(one), safe=_UNRESERVED) for one in (name, value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def without(query: str, name: str) -> str:
    """Return the query string without one parameter."""
    return "&".join(part for part in query.split("&") if part.partition("=")[0] != name)


def signature_v2(secret: str, request: SignedRequest, expires: str, headers: Mapping[str, str]) -> str:
    """Return the Signature Version 2 of a presigned S3 URL, which boto3 still makes for buckets in us-east-1.

    https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html, seen 2026-11-29.
    """
    amazon = sorted((name, value) for name, value in headers.items() if name.startswith("x-amz-"))
    text = "\n".join(
        (
            request.method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            expires,
            *(f"{name}:{value.strip()}" for name, value in amazon),
            _resource_v2(request.path, request.query),
        )
    )
    return b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()


def _resource_v2(path: str, query: str) -> str:
    pairs = sorted(part.partition("=") for part in query.split("&"))
    # Values are signed unescaped.
    kept = [name + equals + unquote(value) for name, equals, value in pairs if name in _SUBRESOURCES_V2]
    return path + (f"?{'&'.join(kept)}" if kept else "")


_SUBRESOURCES_V2 = frozenset(
    (
        "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location",
        "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
        "response-cache-control", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-content-type", "response-expires", "restore", "select", "select-type",
        "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
    )
)  # fmt: skip
"""Query parameters that are signed; botocore 1.44.5 signs the same (``auth.py``, ``HmacV1Auth.QSAOfInterest``)."""
