"""boto3 with nothing but the emulator's environment: S3, STS and IAM on the port of everything else."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import urllib3
from botocore.client import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from tests.emulator.access import aws_keys

from cloudtune_emulator import Emulator, Settings
from cloudtune_emulator.aws.part_store import ExtentReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import openai

MB = 1 << 20
ONCE = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def aws(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in emulator.environment().items():
        monkeypatch.setenv(name, value)
    session = boto3.session.Session()
    return lambda service: session.client(service, config=ONCE)


def test_only_the_environment_says_where_to_go(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    identity = aws("sts").get_caller_identity()
    assert identity["Account"] == emulator.settings.aws_account
    s3 = aws("s3")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [os.environ["EMULATED_BUCKET"]]
    role = aws("iam").get_role(RoleName=os.environ["EMULATED_ROLE"].rpartition("/")[2])["Role"]
    trusted = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
    assert "bedrock.amazonaws.com" in trusted
    key = aws("kms").create_key()["KeyMetadata"]
    assert key["Arn"].split(":")[4] == emulator.settings.aws_account
    aws("logs").create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")


@pytest.mark.parametrize("key", ["plain.jsonl", "with space/ümlaut+&=.jsonl", "a/b//c"])
def test_objects_come_back_as_they_went(aws: Callable[[str], Any], key: str) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    digest = base64.b64encode(hashlib.sha256(b"rows\n" * 1000).digest()).decode()
    s3.put_object(Bucket=bucket, Key=key, Body=b"rows\n" * 1000, ChecksumSHA256=digest, Metadata={"made-by": "me"})
    head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["ChecksumSHA256"], head["Metadata"]) == (5000, digest, {"made-by": "me"})
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"rows\n" * 1000
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key=key)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_a_body_that_is_not_its_checksum_is_refused(aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    digest = base64.b64encode(hashlib.sha256(b"what was meant").digest()).decode()
    with pytest.raises(ClientError, match="BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"what arrived", ChecksumSHA256=digest)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_parts_are_listed_and_joined(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    place = {"Bucket": bucket, "Key": "large.bin"}
    upload = place | {"UploadId": s3.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")["UploadId"]}
    parts = [os.urandom(5 * MB), os.urandom(5 * MB), b"the rest"]
    for number, data in enumerate(parts, 1):
        s3.upload_part(**upload, PartNumber=number, Body=data, ChecksumAlgorithm="SHA256")
    listed = s3.list_parts(**upload)["Parts"]
    assert [part["Size"] for part in listed] == [len(data) for data in parts]
    assert [one["UploadId"] for one in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload["UploadId"]]
    joined = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in listed]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": joined})
    assert s3.get_object(**place)["Body"].read() == b"".join(parts)
    digests = b"".join(hashlib.sha256(data).digest() for data in parts)
    whole = s3.get_object(**place, ChecksumMode="ENABLED")
    assert whole["ChecksumSHA256"] == f"{base64.b64encode(hashlib.sha256(digests).digest()).decode()}-3"
    md5s = b"".join(hashlib.md5(data).digest() for data in parts)
    assert whole["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"'
    assert whole["ContentLength"] == sum(map(len, parts))
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    kept = emulator.context.aws.backend("s3").get_bucket(bucket).keys["large.bin"]
    assert isinstance(kept._value_buffer, ExtentReader)  # on disk, and not in memory


def test_parts_that_do_not_fit_are_refused(aws: Callable[[str], Any]) -> None:
    s3, place = aws("s3"), {"Bucket": os.environ["EMULATED_BUCKET"], "Key": "k"}
    upload = place | {"UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    marks = [s3.upload_part(**upload, PartNumber=n, Body=b"small")["ETag"] for n in (1, 2)]
    both = [{"PartNumber": n, "ETag": mark} for n, mark in enumerate(marks, 1)]
    for parts, code in ((both, "EntityTooSmall"), ([both[0] | {"ETag": '"0"'}], "InvalidPart")):
        with pytest.raises(ClientError, match=code):
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    s3.abort_multipart_upload(**upload)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.list_parts(**upload)
    assert s3.list_objects_v2(Bucket=place["Bucket"])["KeyCount"] == 0


def test_managed_transfers_and_presigned_urls_work(aws: Callable[[str], Any], tmp_path: Path) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    (tmp_path / "f.bin").write_bytes(data := os.urandom(20 * MB))
    s3.upload_file(str(tmp_path / "f.bin"), bucket, "f.bin")
    s3.download_file(bucket, "f.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == data
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "f.bin"})
    assert urllib3.PoolManager().request("GET", url).data == data


def test_over_tls_bodies_come_in_chunks_with_their_checksum_behind(tmp_path: Path) -> None:
    """How boto3 sends where it is safe to: ``aws-chunked``, a CRC as the trailer."""
    (tmp_path / "f.bin").write_bytes(data := os.urandom(9 * MB))
    with Emulator(Settings(), tls=True) as emulator:
        given = emulator.environment()
        s3 = boto3.client(
            "s3", endpoint_url=emulator.url, region_name="us-east-1", verify=given["AWS_CA_BUNDLE"],
            **aws_keys(emulator),
        )  # fmt: skip
        bucket = given["EMULATED_BUCKET"]
        s3.put_object(Bucket=bucket, Key="small", Body=b"x" * 100_000)
        assert s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"x" * 100_000
        s3.upload_file(str(tmp_path / "f.bin"), bucket, "large")
        assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == data


def test_faults_meet_what_moto_serves(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    put: dict[str, Any] = {"Bucket": bucket, "Key": "k", "Body": b"x" * 3 * MB}
    codes = [("throttle", "SlowDown"), ("server_error", "InternalError"), ("forbidden", "AccessDenied"),
             ("expired_credentials", "ExpiredToken")]  # fmt: skip
    for kind, code in codes:
        emulator.faults.add(kind, "s3.PutObject")
        with pytest.raises(ClientError, match=code):
            s3.put_object(**put)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    emulator.faults.add("reset", "s3.PutObject")
    with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
        s3.put_object(**put)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    emulator.faults.add("lost_reply", "s3.PutObject")
    with pytest.raises(ConnectionClosedError):
        s3.put_object(**put)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    emulator.faults.add("throttle", "sts.GetCallerIdentity", message="Slowly.")
    with pytest.raises(ClientError, match=r"Throttling.*Slowly\."):
        aws("sts").get_caller_identity()


def test_a_late_put_lands_whole(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    data = os.urandom(2 * MB)
    emulator.faults.add("late", "s3.PutObject", seconds=30)
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket=bucket, Key="late", Body=data)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    emulator.clock.advance(31)
    assert s3.get_object(Bucket=bucket, Key="late")["Body"].read() == data
    emulator.faults.add("twice", "s3.CreateMultipartUpload")
    s3.create_multipart_upload(Bucket=bucket, Key="twice")
    assert len(s3.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2


def test_requests_are_seen_by_their_operation(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"1")
    s3.list_objects_v2(Bucket=bucket, Prefix="a/")
    aws("sts").get_caller_identity()
    assert [seen["call"] for seen in emulator.requests] == ["s3.PutObject", "s3.ListObjectsV2", "sts.GetCallerIdentity"]
    assert emulator.requests[0]["body"] == {"Bucket": bucket, "Key": "a/b", "bytes": 1}


def test_the_other_apis_stay_where_they_are(
    emulator: Emulator, aws: Callable[[str], Any], client: openai.OpenAI
) -> None:
    aws("sts").get_caller_identity()
    assert client.models.list().data


def test_nothing_of_aws_is_loaded_until_it_is_asked_for() -> None:
    script = """
import sys, urllib.request
from cloudtune_emulator import Emulator
with Emulator() as emulator:
    ask = urllib.request.Request(emulator.openai_url + "/models",
                                 headers={"Authorization": "Bearer " + emulator.settings.api_key})
    urllib.request.urlopen(ask).read()
    ask = urllib.request.Request(emulator.url + "/_emulator/store",
                                 headers={"Authorization": "Bearer " + emulator.settings.admin_token})
    urllib.request.urlopen(ask).read()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"moto", "flask", "boto3", "botocore", "torch"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_admin_api_counts_what_lies_in_buckets(emulator: Emulator, aws: Callable[[str], Any]) -> None:
    s3, bucket = aws("s3"), os.environ["EMULATED_BUCKET"]
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    s3.create_multipart_upload(Bucket=bucket, Key="b")
    assert emulator.census()["s3"] == {bucket: {"objects": 1, "unfinished_uploads": 1}}


def test_accounts_are_worlds_of_their_own(aws: Callable[[str], Any]) -> None:
    with Emulator(Settings(aws_account="210987654321", aws_bucket="another")) as other:
        there = boto3.client("s3", endpoint_url=other.url, **aws_keys(other))
        assert [bucket["Name"] for bucket in there.list_buckets()["Buckets"]] == ["another"]
        assert [bucket["Name"] for bucket in aws("s3").list_buckets()["Buckets"]] == [os.environ["EMULATED_BUCKET"]]


def test_a_stopped_emulator_forgets_its_buckets(aws: Callable[[str], Any]) -> None:
    settings = Settings(aws_account="310987654321")
    for _ in range(2):
        with Emulator(settings) as other:
            s3 = boto3.client("s3", endpoint_url=other.url, **aws_keys(other))
            s3.create_bucket(Bucket="made-anew")
            s3.put_object(Bucket="made-anew", Key="k", Body=b"x")


def test_a_kept_store_keeps_buckets_too(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "store")
    place: dict[str, Any] = {"Bucket": "mine", "Key": "a/b ü.bin"}
    digest = base64.b64encode(hashlib.sha256(b"first").digest()).decode()

    def open_(emulator: Emulator) -> Any:
        return boto3.client("s3", endpoint_url=emulator.url, region_name="us-west-2", **aws_keys(emulator))

    with Emulator(settings) as emulator:
        s3 = open_(emulator)
        s3.create_bucket(Bucket="mine", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        s3.put_object(**place, Body=b"first", Metadata={"by": "me"}, ChecksumSHA256=digest)
        s3.put_object(Bucket="mine", Key="gone", Body=b"x")
        s3.delete_object(Bucket="mine", Key="gone")
        s3.create_bucket(Bucket="emptied", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        s3.delete_bucket(Bucket="emptied")
        before = s3.head_object(**place, ChecksumMode="ENABLED")
    for _ in range(2):
        with Emulator(settings) as emulator:
            s3 = open_(emulator)
            assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["cloudtune-emulated", "mine"]
            assert s3.get_bucket_location(Bucket="mine")["LocationConstraint"] == "us-west-2"
            after = s3.head_object(**place, ChecksumMode="ENABLED")
            for field in ("ETag", "Metadata", "LastModified", "ContentLength", "ChecksumSHA256"):
                assert after[field] == before[field], field
            assert s3.get_object(**place)["Body"].read() == b"first"
            assert s3.list_objects_v2(Bucket="mine")["KeyCount"] == 1
    assert len(list((tmp_path / "store" / "s3" / "mine").iterdir())) == 2


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    boto3.DEFAULT_SESSION = None
