"""Whose request it is, by Signature Version 4: the credential scope names region and service; nothing is verified.

``Credential=KEY/20261121/us-east-1/s3/aws4_request``, in the Authorization header or in the query of a presigned URL
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, seen 2026-11-21).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

_SCOPE = re.compile(r"(?P<key>[^/\s,=]+)/\d{8}/(?P<region>[a-z0-9-]*)/(?P<service>[A-Za-z0-9_.-]+)/aws4_request")
_ALGORITHM = "AWS4-"  # -HMAC-SHA256, and -ECDSA-P256-SHA256 without a region


class Signed(NamedTuple):
    """What a signature says."""

    service: str
    """The signing name: ``bedrock`` for the control plane and for the runtime."""
    region: str
    key: str


def signature(request: Request) -> Signed | None:
    """What the request's signature says, or None where it has none."""
    given = request.headers.get("Authorization", "")
    if not given.startswith(_ALGORITHM):
        given = request.args.get("X-Amz-Credential", "")
        if not given and (key := request.args.get("AWSAccessKeyId")) and "Signature" in request.args:
            return Signed("s3", "us-east-1", key)  # how boto3 still signs URLs of buckets in us-east-1
    found = _SCOPE.search(given)
    if found is None:
        return None
    return Signed(found["service"].lower(), found["region"] or "us-east-1", found["key"])
