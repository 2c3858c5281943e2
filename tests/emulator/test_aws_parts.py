"""Parts of multipart uploads over HTTP: stored as they arrive, listed with their checksums, refused as by S3."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import pytest
import urllib3
from botocore.client import Config
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.emulator.access import aws_keys
from tests.emulator.signing import in_signed_chunks

from cloudtune_emulator.aws.part_store import ExtentReader, PartStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune_emulator import Emulator

MB = 1 << 20
KEY = "a/large & long.bin"


@pytest.fixture
def s3(emulator: Emulator) -> Any:
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=emulator.url, region_name="us-east-1", config=config,
                        **aws_keys(emulator))  # fmt: skip


@pytest.fixture
def place(emulator: Emulator) -> dict[str, Any]:
    return {"Bucket": emulator.settings.aws_bucket, "Key": KEY}


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def begun(s3: Any, place: dict[str, Any], algorithm: str = "CRC32") -> dict[str, Any]:
    return place | {"UploadId": s3.create_multipart_upload(**place, ChecksumAlgorithm=algorithm)["UploadId"]}


def completed(s3: Any, upload: dict[str, Any]) -> None:
    parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in s3.list_parts(**upload)["Parts"]]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def test_a_list_tells_checksums_and_pages_by_number(s3: Any, place: dict[str, Any]) -> None:
    upload = begun(s3, place)
    sent = {number: os.urandom(100 + number) for number in (9, 2, 700, 5, 10_000)}
    for number, data in sent.items():
        reported = s3.upload_part(**upload, PartNumber=number, Body=data, ChecksumCRC32=crc32(data))
        assert reported["ChecksumCRC32"] == crc32(data)
        assert reported["ETag"].strip('"') == hashlib.md5(data).hexdigest()
    found: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = s3.list_parts(**upload, MaxParts=2, **more)
        assert (page["Key"], page["ChecksumAlgorithm"]) == (KEY, "CRC32")
        found += page["Parts"]
        if not page["IsTruncated"]:
            break
        more = {"PartNumberMarker": page["NextPartNumberMarker"]}
    assert [(part["PartNumber"], part["Size"], part["ChecksumCRC32"]) for part in found] == [
        (number, len(data), crc32(data)) for number, data in sorted(sent.items())
    ]


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_a_part_that_is_not_its_checksum_is_refused(s3: Any, place: dict[str, Any], algorithm: str) -> None:
    upload = begun(s3, place, algorithm)
    reported = {
        f"Checksum{algorithm}": base64.b64encode(b"\1" * {"CRC32": 4, "SHA1": 20, "SHA256": 32}[algorithm]).decode()
    }
    with pytest.raises(ClientError, match="BadDigest"):
        s3.upload_part(**upload, PartNumber=1, Body=b"what arrived", **reported)
    assert "Parts" not in s3.list_parts(**upload)


def test_a_part_with_another_kind_of_checksum_than_its_upload_is_refused(s3: Any, place: dict[str, Any]) -> None:
    upload = begun(s3, place, "SHA256")
    with pytest.raises(ClientError, match=r"InvalidRequest.*expected checksum Type: sha256, actual .*: crc32"):
        s3.upload_part(**upload, PartNumber=1, Body=b"x", ChecksumCRC32=crc32(b"x"))


def test_what_there_is_not_is_refused(s3: Any, place: dict[str, Any]) -> None:
    upload = begun(s3, place)
    for wrong, code in (({"PartNumber": 0}, "InvalidArgument"), ({"PartNumber": 10_001}, "InvalidArgument"),
                        ({"UploadId": "none"}, "NoSuchUpload"), ({"Bucket": "nobodys"}, "NoSuchBucket")):  # fmt: skip
        with pytest.raises(ClientError, match=code):
            s3.upload_part(**{**upload, "PartNumber": 1, **wrong}, Body=b"x")
    for wrong, code in (({"UploadId": "none"}, "NoSuchUpload"), ({"Bucket": "nobodys"}, "NoSuchBucket")):
        with pytest.raises(ClientError, match=code):
            s3.list_parts(**{**upload, **wrong})
    s3.abort_multipart_upload(**upload)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.upload_part(**upload, PartNumber=1, Body=b"x")


def test_a_part_that_is_sent_again_stands_for_the_first(s3: Any, place: dict[str, Any]) -> None:
    upload = begun(s3, place)
    first, second, end = os.urandom(5 * MB), os.urandom(5 * MB + 3), b"the end"
    for number, data in ((1, first), (2, end), (1, second)):
        s3.upload_part(**upload, PartNumber=number, Body=data)
    completed(s3, upload)
    assert s3.get_object(**place)["Body"].read() == second + end
    assert s3.get_object(**place, Range=f"bytes={5 * MB}-")["Body"].read() == second[5 * MB :] + end


def test_parts_may_be_copies_of_objects(s3: Any, place: dict[str, Any]) -> None:
    data = os.urandom(5 * MB)
    s3.put_object(**place | {"Key": "source"}, Body=data)
    upload = begun(s3, place)
    s3.upload_part_copy(**upload, PartNumber=1, CopySource={"Bucket": place["Bucket"], "Key": "source"})
    s3.upload_part(**upload, PartNumber=2, Body=b"the end")
    completed(s3, upload)
    assert s3.get_object(**place)["Body"].read() == data + b"the end"


def test_any_number_of_parts_takes_one_open_file(s3: Any, place: dict[str, Any]) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not tell open files")
    upload = begun(s3, place)
    s3.upload_part(**upload, PartNumber=1, Body=b"0")
    before = len(list(descriptors.iterdir()))
    for number in range(2, 60):
        s3.upload_part(**upload, PartNumber=number, Body=b"x" * number)
    assert len(list(descriptors.iterdir())) < before + 20


# -- bodies in chunks --------------------------------------------------------------------------------------------------


def sent(emulator: Emulator, upload: dict[str, Any], data: bytes, length: int, trailers: Mapping[str, str]) -> Any:
    url = f"{emulator.url}/{upload['Bucket']}/{quote(upload['Key'])}?partNumber=1&uploadId={upload['UploadId']}"
    headers, body = in_signed_chunks(emulator, "PUT", url, data, length=length, trailers=trailers)
    return urllib3.request("PUT", url, body=body, headers=headers, retries=False)


def test_chunks_are_unwrapped_and_their_trailer_is_held_against_them(
    emulator: Emulator, s3: Any, place: dict[str, Any]
) -> None:
    data = os.urandom(300_000)
    upload = begun(s3, place)
    name = "x-amz-checksum-crc32"
    assert sent(emulator, upload, data, len(data), {name: crc32(b"else")}).status == 400
    assert "Parts" not in s3.list_parts(**upload)
    assert sent(emulator, upload, data, len(data), {name: crc32(data)}).status == 200
    assert s3.list_parts(**upload)["Parts"][0]["ChecksumCRC32"] == crc32(data)
    completed(s3, upload)
    assert s3.get_object(**place)["Body"].read() == data


@pytest.mark.parametrize("length", [9_999, 10_001])
def test_a_length_that_is_not_the_body_s_is_refused(
    emulator: Emulator, s3: Any, place: dict[str, Any], length: int
) -> None:
    upload = begun(s3, place)
    answer = sent(emulator, upload, os.urandom(10_000), length, {})
    assert (answer.status, b"IncompleteBody" in answer.data) == (400, True)
    assert "Parts" not in s3.list_parts(**upload)


# -- the disk ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.tuples(st.integers(0, 400), st.integers(-1, 400))))
def test_pieces_read_as_what_they_hold_together(contents: list[bytes], reads: list[tuple[int, int]]) -> None:
    heap = PartStore()
    pieces = [heap.reserve(len(content)) for content in contents]
    for piece, content in reversed(list(zip(pieces, contents, strict=True))):
        heap.write(piece.start, content)
    laid, whole = ExtentReader(pieces), b"".join(contents)
    assert laid.size == len(whole)
    for start, size in reads:
        laid.seek(start)
        assert laid.read(size) == (whole[start:] if size < 0 else whole[start : start + size])
    assert laid.seek(0, os.SEEK_END) == laid.tell() == len(whole)
    laid.seek(0)
    assert laid.readall() == whole
