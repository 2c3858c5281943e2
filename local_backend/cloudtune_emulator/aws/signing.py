"""The fields of a request's signature: key, scope, date. `authentication` verifies it.

``Credential=KEY/20261121/us-east-1/s3/aws4_request`` is in the Authorization header, or in the query of a presigned
URL (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, seen 2026-11-21).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from cloudtune_emulator.aws.sigv4 import ALGORITHM

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

_CREDENTIAL = re.compile(
    r"(?P<key>[^/\s,=]+)/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9_.-]+)/aws4_request"
)
_FIELD = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
_US_EAST_1 = "us-east-1"


class Signed(NamedTuple):
    """The fields of a signature."""

    kind: Literal["header", "query", "v2", "malformed"]
    """Where it was found: in the Authorization header, in a presigned URL, or in one of Signature Version 2."""
    service: str = "s3"
    """The signing name: ``bedrock`` for the control plane and for the runtime."""
    region: str = _US_EAST_1
    key: str = ""
    date: str = ""
    """The scope's region."""
    headers: tuple[str, ...] = ()
    """Names of the signed headers."""
    signature: str = ""


def signature(request: Request) -> Signed | None:
    """The request's signature, or None if it has none. One that cannot be parsed is ``malformed``."""
    given = request.headers.get("Authorization", "")
    is_presigned = "X-Amz-Algorithm" in request.args or "X-Amz-Signature" in request.args
    is_v2 = "AWSAccessKeyId" in request.args and "Signature" in request.args
    if given.startswith("AWS"):
        algorithm, _, rest = given.partition(" ")
        fields = dict(_FIELD.findall(rest))
        if algorithm != ALGORITHM or is_presigned or is_v2:
            return Signed("malformed")
        return _read("header", fields)
    if is_presigned:
        names = {
            "Credential": "X-Amz-Credential",
            "SignedHeaders": "X-Amz-SignedHeaders",
            "Signature": "X-Amz-Signature",
        }
        if request.args.get("X-Amz-Algorithm") != ALGORITHM or is_v2:
            return Signed("malformed")
        return _read("query", {name: request.args.get(there, "") for name, there in names.items()})
    if is_v2:  # boto3 still signs URLs of buckets in us-east-1 this way
        return Signed("v2", key=request.args["AWSAccessKeyId"], signature=request.args["Signature"])
    return None


def _read(kind: Literal["header", "query"], fields: dict[str, str]) -> Signed:
    found = _CREDENTIAL.fullmatch(fields.get("Credential", ""))
    if found is None or not fields.get("SignedHeaders") or not fields.get("Signature"):
        return Signed("malformed")
    return Signed(
        kind, found["service"], found["region"], found["key"], found["date"],
        tuple(fields["SignedHeaders"].lower().split(";")), fields["Signature"],
    )  # fmt: skip


def raw_path(request: Request) -> str:
    """The path as it was sent: WSGI's is unescaped, which would split an escaped ARN into segments."""
    sent = str(request.environ.get("REQUEST_URI") or request.path)
    return urlsplit(sent).path if "://" in sent else sent.partition("?")[0]
