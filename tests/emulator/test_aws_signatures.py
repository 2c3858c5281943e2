"""Signatures are verified: what botocore signs is accepted, and any change to it is refused."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import boto3
import botocore.session
import pytest
import urllib3
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.emulator.access import aws_keys
from tests.emulator.routes import Route, send, signed
from tests.emulator.signing import in_signed_chunks, signed_headers
from tests.property_tests import examples

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws import moto_proxy, sigv4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HTTP = urllib3.PoolManager()
PAGE = b"<html><script>alert(1)</script>"


@pytest.fixture(scope="module")
def bed() -> Iterator[Emulator]:
    with Emulator(Settings(aws_account="710987654321"), scale=0) as emulator:
        yield emulator


def client(emulator: Emulator, service: str, config: dict[str, Any] | None = None, **keys: str) -> Any:
    options = Config(retries={"total_max_attempts": 1}, **(config or {}))
    given = aws_keys(emulator) | keys
    return boto3.client(service, endpoint_url=emulator.url, region_name="us-east-1", config=options, **given)


@pytest.fixture
def place(bed: Emulator) -> Iterator[dict[str, Any]]:
    s3, place = client(bed, "s3"), {"Bucket": bed.settings.aws_bucket, "Key": "a b/ü+&=~.html"}
    s3.put_object(**place, Body=b"kept", Metadata={"made_by": "me"})
    yield place
    assert s3.get_object(**place)["Body"].read() == b"kept"


# -- against botocore's signers ----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)
NAMES = st.from_regex(r"x-amz-[a-z][a-z0-9-]{0,10}", fullmatch=True)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def presigned_names(service: str) -> tuple[type[SigV4Auth], type[SigV4QueryAuth]]:
    return (S3SigV4Auth, S3SigV4QueryAuth) if service == "s3" else (SigV4Auth, SigV4QueryAuth)


@settings(deadline=None, max_examples=examples(15))
@given(
    service=st.sampled_from(["s3", "bedrock", "sagemaker"]),
    segments=st.lists(st.text(max_size=8).filter(lambda text: text not in (".", "..")), max_size=4),
    query=st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=8), max_size=4),
    headers=st.dictionaries(NAMES, TEXT, max_size=3),
    body=st.binary(max_size=20),
    is_query=st.booleans(),
)
def test_signatures_are_botocores(
    service: str, segments: list[str], query: dict[str, str], headers: dict[str, str], body: bytes, is_query: bool
) -> None:
    path = "/" + "/".join(quote(one.encode("utf-8", "replace"), safe="~") for one in segments)
    pairs = "&".join(f"{_escaped(name)}={_escaped(value)}" for name, value in query.items())
    request = AWSRequest("PUT", f"http://127.0.0.1:1{path}" + (f"?{pairs}" if pairs else ""), headers, body)
    signer = presigned_names(service)[is_query](Credentials("AKIAEXAMPLE", SECRET), service, "eu-west-1")
    if is_query:
        request.data = b""
    signer.add_auth(request)
    sent = {name.lower(): value for name, value in request.headers.items()} | {"host": "127.0.0.1:1"}
    parts = urlsplit(request.url)
    if is_query:
        there = dict(pair.split("=", 1) for pair in parts.query.split("&"))
        names, found = there["X-Amz-SignedHeaders"].replace("%3B", ";"), there["X-Amz-Signature"]
        timestamp = there["X-Amz-Date"]
        declared = "UNSIGNED-PAYLOAD" if service == "s3" else sigv4.EMPTY_SHA256
    else:
        fields = dict(one.strip().split("=", 1) for one in sent["authorization"].partition(" ")[2].split(","))
        names, found, timestamp = fields["SignedHeaders"], fields["Signature"], sent["x-amz-date"]
        declared = signer.payload(request)
    covered = sigv4.SignedRequest(
        "PUT", parts.path, sigv4.without(parts.query, "X-Amz-Signature"),
        [(name, sent[name]) for name in names.split(";")], declared,
    )  # fmt: skip
    assert sigv4.signature(SECRET, timestamp, sigv4.Scope(timestamp[:8], "eu-west-1", service), covered) == found


def _escaped(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="-_.~")


@settings(deadline=None, max_examples=examples(15))
@given(
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=10),
    parameters=st.dictionaries(st.sampled_from(["uploadId", "partNumber", "versionId", "select", "select-type", "x"]),
                               st.from_regex(r"[A-Za-z0-9 +/=-]{1,8}", fullmatch=True), max_size=4),
    headers=st.dictionaries(NAMES, TEXT, max_size=2),
)  # fmt: skip
def test_version_2_urls_are_botocores(key: str, parameters: dict[str, str], headers: dict[str, str]) -> None:
    url = f"http://127.0.0.1:1/bucket/{quote(key, safe='')}"
    if parameters:
        url += "?" + "&".join(f"{name}={_escaped(value)}" for name, value in parameters.items())
    request = AWSRequest("GET", url, dict(headers))
    HmacV1QueryAuth(Credentials("AKIAEXAMPLE", SECRET), expires=60).add_auth(request)
    parts = urlsplit(request.url)
    from werkzeug.wrappers import Request

    there = Request({"QUERY_STRING": parts.query}).args
    covered = sigv4.SignedRequest("GET", parts.path, parts.query, (), "")
    assert sigv4.signature_v2(SECRET, covered, there["Expires"], headers) == there["Signature"]


# -- over the wire -----------------------------------------------------------------------------------------------------


def test_metadata_names_keep_their_underscores(bed: Emulator, place: dict[str, Any]) -> None:
    assert client(bed, "s3").head_object(**place)["Metadata"] == {"made_by": "me"}


@pytest.mark.parametrize(
    ("service", "call", "unknown", "mismatch"),
    [
        ("s3", "list_buckets", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("iam", "list_roles", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("sagemaker", "list_training_jobs", "UnrecognizedClientException", "InvalidSignatureException"),
        ("logs", "describe_log_groups", "UnrecognizedClientException", "InvalidSignatureException"),
        ("bedrock", "list_foundation_models", "UnrecognizedClientException", "InvalidSignatureException"),
        ("cloudwatch", "list_metrics", "UnrecognizedClientException", "InvalidSignatureException"),
    ],
)
def test_other_keys_are_refused_in_the_services_words(
    bed: Emulator, service: str, call: str, unknown: str, mismatch: str
) -> None:
    getattr(client(bed, service), call)()
    for keys, code in (({"aws_access_key_id": "AKIAOTHER"}, unknown), ({"aws_secret_access_key": "other"}, mismatch)):
        with pytest.raises(ClientError) as caught:
            getattr(client(bed, service, **keys), call)()
        assert caught.value.response["Error"]["Code"] == code


CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nothing": lambda sent: {},
    "method": lambda sent: {"method": "DELETE"},
    "path": lambda sent: {"url": sent["url"].replace("/k", "/l")},
    "query": lambda sent: {"url": sent["url"] + "?acl"},
    "body": lambda sent: {"body": PAGE + b" "},
    "header": lambda sent: {"headers": sent["headers"] | {"x-amz-meta-a": "2"}},
    "unsigned header": lambda sent: {"headers": sent["headers"] | {"x-amz-acl": "public-read"}},
    "signature": lambda sent: {"headers": sent["headers"] | {"Authorization": sent["headers"]["Authorization"][:-1]}},
    "no signature": lambda sent: {"headers": {}},
    "no date": lambda sent: {"headers": sent["headers"] | {"X-Amz-Date": ""}},
    "region": lambda sent: {"headers": sent["headers"]
                            | {"Authorization": sent["headers"]["Authorization"].replace("us-east-1", "us-east-2")}},
    "algorithm": lambda sent: {"headers": sent["headers"] | {
        "Authorization": sent["headers"]["Authorization"].replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")}},
    "version 2": lambda sent: {"headers": {"Authorization": "AWS AKIAEXAMPLE:signature"}},
    "both places": lambda sent: {"url": sent["url"] + "?X-Amz-Algorithm=AWS4-HMAC-SHA256"},
}  # fmt: skip
"""What is changed in a signed PutObject after it was signed."""


@pytest.mark.parametrize("change", CHANGES)
def test_changed_requests_are_refused(bed: Emulator, place: dict[str, Any], change: str) -> None:
    url = f"{bed.url}/{place['Bucket']}/k"
    headers = signed_headers(bed, "PUT", url, data=PAGE, headers={"x-amz-meta-a": "1"})
    sent: dict[str, Any] = {"method": "PUT", "url": url, "body": PAGE, "headers": headers}
    status = HTTP.request(**sent | CHANGES[change](sent)).status
    s3 = client(bed, "s3")
    keys = {one["Key"] for one in s3.list_objects_v2(Bucket=place["Bucket"])["Contents"]}
    if change == "nothing":
        assert (status, "k" in keys) == (200, True)
        s3.delete_object(Bucket=place["Bucket"], Key="k")
    else:
        assert status in (400, 403)
        assert not keys & {"k", "l"}


@pytest.mark.parametrize("minutes", [-20, -10, 10, 20])
def test_old_and_future_signatures_are_refused(bed: Emulator, monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: moment.replace(tzinfo=None))
    answer = HTTP.request("GET", f"{bed.url}/", headers=signed_headers(bed, "GET", f"{bed.url}/"))
    is_refused = abs(minutes) > 15
    assert (answer.status, b"RequestTimeTooSkewed" in answer.data) == (403 if is_refused else 200, is_refused)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls_expire_and_bind(
    bed: Emulator, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    s3 = client(bed, "s3", {"signature_version": version})
    url = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=60)
    assert HTTP.request("GET", url).data == b"kept"
    for changed in (url.replace("html", "htm"), url + "0", url.replace("Expires=", "Expires=9")):
        assert HTTP.request("GET", changed).status in (400, 403)
    assert HTTP.request("DELETE", url).status == 403
    assert HTTP.request("GET", url, headers={"x-amz-meta-a": "1"}).status == 403
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    answer = HTTP.request("GET", url)
    assert (answer.status, b"Request has expired" in answer.data) == (403, True)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_uploads_work(bed: Emulator, place: dict[str, Any], version: str) -> None:
    s3 = client(bed, "s3")
    signer = client(bed, "s3", {"signature_version": version})
    url = signer.generate_presigned_url("put_object", Params=place | {"Key": "up"})
    assert HTTP.request("PUT", url, body=b"sent").status == 200
    assert s3.get_object(**place | {"Key": "up"})["Body"].read() == b"sent"
    s3.delete_object(**place | {"Key": "up"})


@pytest.mark.parametrize("trailers", [{}, {"x-amz-checksum-sha256": "jZfXtCDV6+b1b+TzmpN7PTPDU/MVTF5AwKV2bU4yMg8="}])
def test_signed_chunks_are_verified(bed: Emulator, place: dict[str, Any], trailers: dict[str, str]) -> None:
    data, url = b"0123456789abcdef" * 1000, f"{bed.url}/{place['Bucket']}/chunked"
    import base64
    import hashlib

    trailers = {name: base64.b64encode(hashlib.sha256(data).digest()).decode() for name in trailers}
    for broken in (0, 1):
        headers, body = in_signed_chunks(bed, "PUT", url, data, size=9000, trailers=trailers, break_chunk=broken)
        answer = HTTP.request("PUT", url, body=body, headers=headers)
        assert (answer.status, b"SignatureDoesNotMatch" in answer.data) == (403, True)
    headers, body = in_signed_chunks(bed, "PUT", url, data, size=9000, trailers=trailers)
    assert HTTP.request("PUT", url, body=body[:-40], headers=headers).status in (400, 403)
    assert HTTP.request("PUT", url, body=body, headers=headers).status == 200
    s3 = client(bed, "s3")
    assert s3.get_object(**place | {"Key": "chunked"})["Body"].read() == data
    s3.delete_object(**place | {"Key": "chunked"})


def test_parts_in_signed_chunks_are_verified(bed: Emulator, place: dict[str, Any]) -> None:
    s3, given = client(bed, "s3"), place | {"Key": "parts"}
    upload = s3.create_multipart_upload(**given)["UploadId"]
    data, url = b"0123456789abcdef" * 1000, f"{bed.url}/{place['Bucket']}/parts?partNumber=1&uploadId={upload}"
    for broken in (0, 1):
        headers, body = in_signed_chunks(bed, "PUT", url, data, size=9000, break_chunk=broken)
        answer = HTTP.request("PUT", url, body=body, headers=headers)
        assert (answer.status, b"SignatureDoesNotMatch" in answer.data) == (403, True)
    # Longer than it says, and shorter; not to the end; with bytes behind the end.
    for length, cut, more in ((9000, None, b""), (20_000, None, b""), (None, -100, b""), (None, None, b"more")):
        headers, body = in_signed_chunks(bed, "PUT", url, data, size=9000, length=length)
        assert HTTP.request("PUT", url, body=body[:cut] + more, headers=headers).status == 400, (length, cut, more)
    assert "Parts" not in s3.list_parts(**given, UploadId=upload)
    headers, body = in_signed_chunks(bed, "PUT", url, data, size=9000)
    assert HTTP.request("PUT", url, body=body, headers=headers).status == 200
    assert [part["Size"] for part in s3.list_parts(**given, UploadId=upload)["Parts"]] == [len(data)]
    s3.abort_multipart_upload(**given, UploadId=upload)


def test_temporary_credentials_open_with_their_token(bed: Emulator) -> None:
    role = bed.environment()["EMULATED_ROLE"]
    given = client(bed, "sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
    assert client(bed, "s3", **keys, aws_session_token=given["SessionToken"]).list_buckets()["Buckets"]
    for token in ("", "other"):
        with pytest.raises(ClientError, match="InvalidToken"):
            client(bed, "s3", **keys, aws_session_token=token).list_buckets()
    (assumed,) = bed.context.aws.backend("sts").assumed_roles
    assumed.expiration -= timedelta(hours=2)
    with pytest.raises(ClientError, match="expired"):
        client(bed, "s3", **keys, aws_session_token=given["SessionToken"]).list_buckets()


def test_large_parts_stay_on_disk_and_are_checked(bed: Emulator, place: dict[str, Any]) -> None:
    s3, target = client(bed, "s3"), place | {"Key": "parts"}
    upload = target | {"UploadId": s3.create_multipart_upload(**target)["UploadId"]}
    url = f"{bed.url}/{place['Bucket']}/parts?partNumber=1&uploadId={upload['UploadId']}"
    data = os.urandom(1 << 20)
    headers = signed_headers(bed, "PUT", url, data=data)
    answer = HTTP.request("PUT", url, body=data[:-1] + b"x", headers=headers)
    assert (answer.status, b"XAmzContentSHA256Mismatch" in answer.data) == (400, True)
    assert "Parts" not in s3.list_parts(**upload)
    assert HTTP.request("PUT", url, body=data, headers=headers).status == 200
    s3.abort_multipart_upload(**upload)


# -- what is left of moto ----------------------------------------------------------------------------------------------


def test_other_services_are_refused(bed: Emulator) -> None:
    """Every service that botocore knows, but for those that are emulated: nothing calls out, nothing runs."""
    names = set(botocore.session.get_session().get_available_services())
    own = {*moto_proxy.SERVICES, "bedrock", "sagemaker", "application-autoscaling"}
    assert {"sns", "sqs", "lambda", "events", "ec2", "cloudformation"} < names - own
    for name in sorted(names - own):
        route = Route(name, name, "POST", "/moto-api/reset", {})
        answer = send(bed, route, signed(bed, route))
        assert (answer.status_code, answer.headers["x-amzn-ErrorType"]) == (400, "UnknownOperationException"), name


def test_motos_admin_api_is_not_there(bed: Emulator, place: dict[str, Any]) -> None:
    for service in moto_proxy.SERVICES:
        for method, path in (("POST", "/moto-api/reset"), ("GET", "/moto-api/data.json"), ("POST", "/moto-api/config"),
                             ("GET", "/latest/meta-data/iam/security-credentials/")):  # fmt: skip
            url = bed.url + path
            answer = HTTP.request(method, url, headers=signed_headers(bed, method, url, service=service))
            assert answer.status >= 400, (service, path)


def test_operations_that_call_other_services_are_refused(bed: Emulator, place: dict[str, Any]) -> None:
    configuration = {"TopicConfigurations": [{"TopicArn": "arn:aws:sns:us-east-1:710987654321:t", "Events": ["s3:*"]}]}
    with pytest.raises(ClientError, match="has no operation PutBucketNotificationConfiguration"):
        client(bed, "s3").put_bucket_notification_configuration(
            Bucket=place["Bucket"], NotificationConfiguration=configuration
        )
    client(bed, "logs").create_log_group(logGroupName="g")
    with pytest.raises(ClientError, match="has no operation PutSubscriptionFilter"):
        client(bed, "logs").put_subscription_filter(
            logGroupName="g", filterName="f", filterPattern="", destinationArn="arn:aws:lambda:us-east-1:1:function:f"
        )
