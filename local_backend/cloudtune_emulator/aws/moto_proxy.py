"""Requests for moto: S3, STS, IAM, KMS, logs and the few others of `SERVICES`. Faults apply to them too.

moto emulates some 180 services, and several of them call URLs, start containers or reset everything. Only those that a
back end or a documented path needs are allowed, without the operations that make a service call another.

Bodies are streamed as they arrive. A request that a fault delays is held in a temporary file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from cloudtune_emulator.aws import (
    authentication,
    buckets,
    errors,
    moto_requests,
    permissions,
    price_list,
    quotas,
)
from cloudtune_emulator.aws.parts import (
    CHECKS,
    checksum_in,
    is_wrapped,
    list_parts,
    no_upload,
    refuse_other,
    upload_part,
)
from cloudtune_emulator.aws.signing import Signed, signature
from cloudtune_emulator.http import Call, Raw, received
from cloudtune_emulator.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Request

    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Api, Reply

SERVICES: Mapping[str, str | None] = {
    "s3": "s3", "sts": "sts", "iam": "iam", "kms": "kms", "logs": "logs", "monitoring": "cloudwatch",
    "pricing": None, "secretsmanager": "secretsmanager", "servicequotas": "servicequotas",
}  # fmt: skip
"""Signing name -> moto's name of the service; None where all operations are implemented here."""
REFUSED = frozenset(
    {"s3.PutBucketNotificationConfiguration", "logs.PutSubscriptionFilter", "secretsmanager.RotateSecret"}
)
"""Operations that make moto call other services."""
_LOG = logging.getLogger(__name__)
_FORM = "application/x-www-form-urlencoded"
_BLOCK = 1 << 20
_ACTION = re.compile(rb"(?:^|&)Action=([A-Za-z0-9]+)")
_LARGEST_PUT = 1 << 30
"""Limit of PutObject, whose objects moto holds in memory; the SDKs send larger files in parts."""
_LARGEST_BODY = 16 << 20
"""Limit of every other call: lists of keys or parts, policies, log events."""
_OBJECT = {
    ("PUT", "partNumber"): "UploadPart",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploadId"): "ListParts",
    ("PUT", "tagging"): "PutObjectTagging",
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "attributes"): "GetObjectAttributes",
}
_BUCKET = {
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "list-type"): "ListObjectsV2",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versioning"): "GetBucketVersioning",
    ("PUT", "versioning"): "PutBucketVersioning",
    ("GET", "policy"): "GetBucketPolicy",
    ("PUT", "policy"): "PutBucketPolicy",
    ("GET", "encryption"): "GetBucketEncryption",
    ("PUT", "encryption"): "PutBucketEncryption",
    ("GET", "versions"): "ListObjectVersions",
    ("PUT", "notification"): "PutBucketNotificationConfiguration",
}
_PLAIN = {
    "object": {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"},
    "bucket": {"PUT": "CreateBucket", "GET": "ListObjects", "HEAD": "HeadBucket", "DELETE": "DeleteBucket"},
}
_READING = frozenset({"s3.GetObject", "s3.HeadObject", "s3.ListObjects", "s3.ListObjectsV2"})
_ALONE = _READING | {"s3.CompleteMultipartUpload"}
_CHANGING = frozenset(
    f"s3.{name}"
    for name in ("PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects", "CreateBucket",
                 "DeleteBucket")
)  # fmt: skip
_NOTED = ("x-amz-checksum-sha256", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


def route(signed: Signed, request: Request) -> Route:
    """The route for a request to a service that moto emulates. Raises AwsError for one that is not allowed."""
    if signed.service not in SERVICES:
        raise errors.AwsError(
            400, "UnknownOperationException",
            f"The emulator has no service {signed.service!r}. Besides Bedrock and SageMaker: {', '.join(SERVICES)}.",
            protocol=authentication.protocol_of(request, signed.service),
        )  # fmt: skip
    return _door(f"{signed.service}.{_operation(signed, request)}")


def named(name: str) -> Route:
    """The route of a call that is already read."""
    return _door(name)


def _door(name: str) -> Route:
    service = name.partition(".")[0]
    protocol: errors.Protocol = "s3" if service == "s3" else "query" if service in ("sts", "iam") else "json"
    return Route(
        "aws", name, _act, authentication.verified, read=read, dressed=errors.dressed(protocol),
        check_request=_check_request,
    )  # fmt: skip


def _check_request(context: EmulatorContext, call: Call) -> None:
    if call.name in REFUSED:
        raise errors.unknown(call.name)
    moto_requests.check(context, call)


def _act(context: EmulatorContext, call: Call) -> Reply:
    return _OWN.get(call.name, _pass)(context, call)


def _operation(signed: Signed, request: Request) -> str:
    """The operation's name in botocore, by which faults are selected."""
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if signed.service != "s3":
        return request.args.get("Action") or request.method
    _, key = place(request.path)
    for (method, parameter), name in (_OBJECT if key else _BUCKET).items():
        if request.method == method and parameter in request.args:
            return name
    if request.path == "/":
        return "ListBuckets"
    level = "object" if key else "bucket"
    for parameter in request.args:
        if known := moto_requests.subresources().get((request.method, level, parameter)):
            return known
    if key and request.method == "PUT" and "x-amz-copy-source" in request.headers:
        return "CopyObject"
    return _PLAIN[level].get(request.method, request.method)


def place(path: str) -> tuple[str, str]:
    """Bucket and key of a path; moto resolves buckets in the host's name."""
    bucket, _, key = path.lstrip("/").partition("/")
    return bucket, key


def read(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    """The call, its body in a temporary file; the body of a part is read later, as it arrives."""
    head = read_head(request, api, name, ids, now)
    assert head.raw is not None
    if name == "s3.UploadPart" and "x-amz-copy-source" not in request.headers:
        return head
    body = received(request.stream, _LARGEST_PUT if name == "s3.PutObject" else _LARGEST_BODY)
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    if request.method == "POST" and request.mimetype == _FORM and "Action" not in request.args:
        # The query protocol names the operation in the body.
        found = _ACTION.search(body.read())
        name = f"{name.partition('.')[0]}.{found[1].decode()}" if found else name
        body.seek(0)
    environ = {key: value for key, value in head.raw.environ.items() if key != "HTTP_TRANSFER_ENCODING"}
    if size or "HTTP_TRANSFER_ENCODING" in head.raw.environ:
        environ["CONTENT_LENGTH"] = str(size)
    return replace(head, name=name, raw=Raw(environ=environ, body=body))


def read_head(request: Request, api: Api, name: str, ids: Mapping[str, str], now: float) -> Call:
    """The call, its body unread."""
    signed = signature(request)
    assert signed is not None
    noted: dict[str, Any] = {}
    if name.startswith("s3."):
        noted["Bucket"], noted["Key"] = place(request.path)
        noted |= {header: request.headers[header] for header in _NOTED if header in request.headers}
        if request.method == "PUT":
            noted["bytes"] = request.content_length
    return Call(
        api=api, name=name, ids=ids, query=request.args.to_dict(), body=noted, now=now, region=signed.region,
        headers={key.lower(): value for key, value in request.headers.items()},
        base=request.host_url.rstrip("/"), raw=Raw(environ=request.environ, body=request.stream),
    )  # fmt: skip


def _quotas(context: EmulatorContext, call: Call) -> Reply:
    return quotas.listed(context, call) or _pass(context, call)


def _prices(context: EmulatorContext, call: Call) -> Reply:
    return price_list.products(context, call)


def _pass(context: EmulatorContext, call: Call) -> Reply:
    if call.name == "s3.ListParts":
        return list_parts(context, call)
    if call.name == "s3.UploadPart" and "x-amz-copy-source" not in call.headers:
        return upload_part(context, call)
    assert call.raw is not None
    if str(call.body.get("Bucket") or "").startswith(buckets.ESCROW):
        raise errors.AwsError(403, "AccessDenied", "Access Denied", protocol="s3")
    if call.name in ("s3.UploadPart", "s3.CompleteMultipartUpload"):
        _refuse_unknown_upload(context, call)
    environ = moto_requests.without_unknown_headers(call, call.raw.again())
    if call.name == "s3.PutObject":
        _check(call, environ)
    service = SERVICES[call.name.partition(".")[0]]
    if service is None:
        raise errors.unknown(call.name)
    context.aws.open()  # before taking the lock below: opening takes the store's lock
    with context.aws.joining if call.name in _ALONE else contextlib.nullcontext():
        try:
            reply = context.aws.answer(environ, service)
        except NotImplementedError as error:  # moto raises this for operations that it lacks
            raise errors.unknown(call.name) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
            if innermost.f_globals["__name__"].partition(".")[0] == __name__.partition(".")[0]:
                raise  # an error from this emulator's own S3 backend, which moto calls
            _LOG.warning("moto cannot read a request for %s", call.name, exc_info=True)
            raise errors.unreadable(call.name, error) from error
    if call.name in _CHANGING and reply.status < 300:
        context.aws.keep(call.body["Bucket"])
    return reply


def _refuse_unknown_upload(context: EmulatorContext, call: Call) -> None:
    """A part, or the completion, of an upload that was completed or aborted: moto 5.2.5 fails on it."""
    bucket = context.aws.backend("s3").buckets.get(call.body["Bucket"])
    if bucket is not None and call.query.get("uploadId") not in bucket.multiparts:
        raise no_upload()


def _check(call: Call, environ: dict[str, Any]) -> None:
    """Refuse a body that does not match its checksum, as S3 does and moto does not.

    S3 stores the checksum even without the header that names the algorithm; moto needs that header
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html, seen 2026-11-21).
    """
    checksum = checksum_in(call.headers)
    if checksum is None:
        return
    algorithm, value = checksum
    environ.setdefault("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", algorithm.upper())
    if algorithm not in CHECKS or is_wrapped(call.headers):
        return
    body: IO[bytes] = environ["wsgi.input"]
    check = CHECKS[algorithm]()
    while block := body.read(_BLOCK):
        check.update(block)
    refuse_other(algorithm, check.digest(), value)
    body.seek(0)


_OWN: dict[str, Callable[[EmulatorContext, Call], Reply]] = {
    permissions.SIMULATE: permissions.simulate, price_list.CALL: _prices, **dict.fromkeys(quotas.CALLS, _quotas),
}  # fmt: skip
"""Operations that moto lacks and that are implemented here."""
