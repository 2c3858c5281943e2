"""Verification that a request is signed with one of this emulator's AWS credentials.

Header signatures and presigned URLs of Signature Version 4, and presigned S3 URLs of Version 2. Validity is checked
against the machine's time, not the emulator's clock, because clients sign with theirs. Codes and messages: S3's list
of error responses
(https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html) and the common errors of the other services
(https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html), both seen 2026-11-29.
"""

from __future__ import annotations

import hmac
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from cloudtune_emulator.aws import payload, sigv4
from cloudtune_emulator.aws.errors import AwsError, Protocol, dressed
from cloudtune_emulator.aws.signing import raw_path
from cloudtune_emulator.http import ApiError
from cloudtune_emulator.wsgi_bridge import BodyTimeout

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from cloudtune_emulator.aws.signing import Signed
    from cloudtune_emulator.context import EmulatorContext

SKEW_S = 15 * 60
LONGEST_S = 7 * 24 * 3600
"""Longest validity of a presigned URL (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html,
seen 2026-11-29)."""
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Reason = Literal["missing", "malformed", "unknown_key", "mismatch", "skewed", "expired", "bad_token", "unsigned_header"]
_INVALID_TOKEN = "The security token included in the request is invalid."  # noqa: S105 - a message
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method."
)
_SKEWED = "Signature expired: the time of the request and the current time differ by more than 15 minutes."
_TOO_FAR = "The difference between the request time and the current time is too large."
_MISSING = "Request is missing Authentication Token"
_MALFORMED = "The authorization header or the query parameters of the signature are malformed."
_UNSIGNED = "There were headers present in the request which were not signed"
_EXPIRED = "The security token included in the request is expired"
_S3: dict[Reason, tuple[int, str, str]] = {
    "missing": (403, "AccessDenied", "Access Denied"),
    "malformed": (400, "AuthorizationHeaderMalformed", _MALFORMED),
    "unknown_key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "mismatch": (403, "SignatureDoesNotMatch", _MISMATCH),
    "skewed": (403, "RequestTimeTooSkewed", _TOO_FAR),
    "expired": (403, "AccessDenied", "Request has expired"),
    "bad_token": (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    "unsigned_header": (403, "AccessDenied", _UNSIGNED),
}  # fmt: skip
_QUERY: dict[Reason, tuple[int, str, str]] = {
    "missing": (403, "MissingAuthenticationToken", _MISSING),
    "malformed": (400, "IncompleteSignature", _MALFORMED),
    "unknown_key": (403, "InvalidClientTokenId", _INVALID_TOKEN),
    "mismatch": (403, "SignatureDoesNotMatch", _MISMATCH),
    "skewed": (403, "SignatureDoesNotMatch", _SKEWED),
    "expired": (403, "ExpiredToken", _EXPIRED),
    "bad_token": (403, "InvalidClientTokenId", _INVALID_TOKEN),
    "unsigned_header": (403, "SignatureDoesNotMatch", _UNSIGNED),
}
_JSON: dict[Reason, tuple[int, str, str]] = {
    "missing": (403, "MissingAuthenticationTokenException", _MISSING),
    "malformed": (400, "IncompleteSignatureException", _MALFORMED),
    "unknown_key": (403, "UnrecognizedClientException", _INVALID_TOKEN),
    "mismatch": (403, "InvalidSignatureException", _MISMATCH),
    "skewed": (403, "InvalidSignatureException", _SKEWED),
    "expired": (403, "ExpiredTokenException", _EXPIRED),
    "bad_token": (403, "UnrecognizedClientException", _INVALID_TOKEN),
    "unsigned_header": (403, "InvalidSignatureException", _UNSIGNED),
}
_TABLES: dict[Protocol, dict[Reason, tuple[int, str, str]]] = {
    "s3": _S3, "query": _QUERY, "json": _JSON, "rest-json": _JSON,
}  # fmt: skip


class Credential(NamedTuple):
    """An access key that the emulator accepts."""

    secret: str
    token: str | None = None
    """The session token of temporary credentials."""
    is_expired: bool = False


def refusal(reason: Reason, protocol: Protocol) -> AwsError:
    """The service's answer to a request without good credentials."""
    status, code, message = _TABLES[protocol][reason]
    return AwsError(status, code, message, protocol=protocol)


def protocol_of(request: Request, service: str) -> Protocol:
    """How the caller reads errors."""
    if service in ("sts", "iam") or request.mimetype == "application/x-www-form-urlencoded":
        return "query"
    if "X-Amz-Target" in request.headers:
        return "json"
    return "s3" if service == "s3" else "rest-json"


def verify(context: EmulatorContext, request: Request, signed: Signed) -> None:
    """Check the signature. The body that is read afterwards is the one that was signed, or reading it raises.

    Only requests that name a known access key have their bodies read. Raises AwsError in the shape of the service that
    the request is for.
    """
    protocol = protocol_of(request, signed.service)
    if signed.kind == "malformed":
        raise refusal("malformed", protocol)
    credential = _credential(context, signed.key)
    if credential is None:
        raise refusal("unknown_key", protocol)
    if credential.is_expired:
        raise refusal("expired", protocol)
    if signed.kind == "v2":
        _verify_v2(request, signed, credential)
        return
    timestamp = _timestamp(request, signed, protocol)
    given_token = request.headers.get("X-Amz-Security-Token") or request.args.get("X-Amz-Security-Token", "")
    if credential.token is not None and not hmac.compare_digest(given_token.encode(), credential.token.encode()):
        raise refusal("bad_token", protocol)
    # WSGI replaces underscores with hyphens, see `header_names`.
    sent = {"host"} | {name.lower() for name, _ in request.headers if name.lower().startswith("x-amz-")}
    if not sent <= {name.replace("_", "-") for name in signed.headers}:
        raise refusal("unsigned_header", protocol)
    declared = _declared_hash(request, signed)
    found = _hashed(request, protocol) if declared is None else None
    scope = sigv4.Scope(signed.date, signed.region, signed.service)
    query = request.query_string.decode("latin-1")
    covered = sigv4.SignedRequest(
        request.method, raw_path(request), sigv4.without(query, "X-Amz-Signature"),
        [(name, request.headers.get(name, "")) for name in signed.headers], found or declared or "",
    )  # fmt: skip
    wanted = sigv4.signature(credential.secret, timestamp, scope, covered)
    if not hmac.compare_digest(signed.signature.encode(), wanted.encode()):
        raise refusal("mismatch", protocol)
    if declared is not None:
        payload.guard(request, declared, payload.ChunkSigner(credential.secret, timestamp, scope, wanted))


def _hashed(request: Request, protocol: Protocol) -> str:
    try:
        return payload.spooled(request)
    except ApiError as error:
        raise dressed(protocol)(error) from error
    except BodyTimeout as error:
        slow = ApiError(408, str(error), code="RequestTimeout")
        raise dressed(protocol)(slow) from error


def verified(context: EmulatorContext, request: Request) -> None:
    """The check of AWS's routes: `front.find` verifies before it chooses a route."""


def _declared_hash(request: Request, signed: Signed) -> str | None:
    """S3's ``x-amz-content-sha256`` value; None where the body itself is hashed, as for every other service."""
    declared = request.headers.get("X-Amz-Content-SHA256")
    if signed.service != "s3":
        return declared if declared == payload.UNSIGNED else None
    if declared is None and signed.kind == "query":
        return payload.UNSIGNED
    if declared is None or not (_SHA256.fullmatch(declared) or declared in payload.MARKERS):
        message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING value, or a valid sha256 value."
        raise AwsError(400, "InvalidRequest", message, protocol="s3")
    return declared


def _timestamp(request: Request, signed: Signed, protocol: Protocol) -> str:
    """The time of signing, if it is close enough to the current time."""
    is_query = signed.kind == "query"
    text = request.args.get("X-Amz-Date", "") if is_query else request.headers.get("X-Amz-Date", "")
    if not _TIMESTAMP.fullmatch(text) or text[:8] != signed.date:
        raise refusal("malformed", protocol)
    try:
        age = time.time() - datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise refusal("malformed", protocol) from None
    if not is_query:
        if abs(age) > SKEW_S:
            raise refusal("skewed", protocol)
        return text
    expires = request.args.get("X-Amz-Expires", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 8 and 1 <= int(expires) <= LONGEST_S):
        raise refusal("malformed", protocol)
    if age < -SKEW_S:
        raise refusal("skewed", protocol)
    if age > int(expires):
        raise refusal("expired", protocol)
    return text


def _verify_v2(request: Request, signed: Signed, credential: Credential) -> None:
    expires = request.args.get("Expires", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 13):
        raise refusal("malformed", "s3")
    if int(expires) < time.time():
        raise refusal("expired", "s3")
    in_query = {name.lower(): value for name, value in request.args.items()}
    parameters = {name: value for name, value in in_query.items() if name.startswith(("x-amz-", "content-"))}
    headers = parameters | {name.lower(): value for name, value in request.headers.items()}
    if credential.token is not None and headers.get("x-amz-security-token") != credential.token:
        raise refusal("bad_token", "s3")
    query = request.query_string.decode("latin-1")
    covered = sigv4.SignedRequest(request.method, raw_path(request), query, (), payload.UNSIGNED)
    wanted = sigv4.signature_v2(credential.secret, covered, expires, headers)
    if not hmac.compare_digest(signed.signature.encode(), wanted.encode()):
        raise refusal("mismatch", "s3")


def _credential(context: EmulatorContext, key: str) -> Credential | None:
    """The emulator's own key, or one that STS issued for a role."""
    if context.opens(key, context.settings.aws_key):
        return Credential(context.settings.aws_secret)
    if not context.aws.is_open:
        return None
    role = context.aws.backend("sts").get_assumed_role_from_access_key(key)
    if role is None:
        return None
    expires = role.expiration if role.expiration.tzinfo else role.expiration.replace(tzinfo=UTC)
    return Credential(role.secret_access_key, role.session_token, expires < datetime.now(UTC))
