"""Objects in a bucket: written once and whole, gone on with after a kill, nothing left over."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ConnectionClosedError

from cloudtune.backend import Absent, Done
from cloudtune.errors import Conflict, DataError, JobNotFound, Unavailable
from cloudtune_providers.aws import parts, s3
from cloudtune_providers.aws.s3 import SINGLE_BYTES, Objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "cloudtune/data/abc/train.jsonl"


def _file(path: Path, size: int) -> tuple[Path, str]:
    content = random.Random(size).randbytes(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def _calls(objects: Objects, name: str) -> list[Any]:
    """The parameters of every call of that operation from now on."""
    seen: list[Any] = []
    objects._s3.meta.events.register(
        f"provide-client-params.s3.{name}",
        lambda params, **_: seen.append({k: params[k] for k in params if k != "Body"}),
    )
    return seen


def test_a_small_file_goes_in_one_request_and_is_found_again(objects: Objects, tmp_path: Path, journal: Any) -> None:
    path, sha = _file(tmp_path / "a", 1000)
    assert objects.find(KEY, sha) == Absent()
    put = objects.put(KEY, path, sha, journal)
    assert put == {"key": KEY, "url": f"s3://rows/{KEY}", "bytes": 1000, "sha256": sha}
    assert objects.find(KEY, sha, 1000) == Done(outputs=put)
    assert objects.read(KEY) == path.read_bytes()
    with pytest.raises(Conflict):
        objects.find(KEY, "0" * 64)
    with pytest.raises(Conflict):
        objects.find(KEY, sha, 999)


@pytest.mark.parametrize("size", [1000, SINGLE_BYTES + 1])
def test_a_file_that_changed_is_refused_and_leaves_nothing(
    objects: Objects, tmp_path: Path, journal: Any, size: int
) -> None:
    path, _ = _file(tmp_path / "a", size)
    with pytest.raises(DataError, match="changed"):
        objects.put(KEY, path, "0" * 64, journal)
    assert objects.list("cloudtune/") == []
    assert objects.uploads("") == []


def test_a_file_that_is_cut_while_it_is_read_is_refused(
    objects: Objects, tmp_path: Path, journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha = _file(tmp_path / "a", 2 * parts.PART_BYTES)
    read = parts.read_parts

    def cut(path: Path) -> Iterator[Any]:
        for part, content in read(path):
            yield part, content[: 100 if part.number == 1 else 0]

    monkeypatch.setattr(s3, "read_parts", cut)
    with pytest.raises(DataError, match="changed"):
        objects.put(KEY, path, sha, journal)
    assert objects.list("cloudtune/") == []
    assert objects.uploads("") == []


def test_a_large_file_arrives_whole(objects: Objects, tmp_path: Path, journal: Any) -> None:
    path, sha = _file(tmp_path / "a", 3 * parts.PART_BYTES + 17)
    put = objects.put(KEY, path, sha, journal)
    assert objects.find(KEY, sha, path.stat().st_size) == Done(outputs=put)
    assert hashlib.sha256(objects.read(KEY)).hexdigest() == sha
    assert objects.uploads("") == []


def test_after_a_break_only_missing_parts_are_sent(objects: Objects, tmp_path: Path, journal: Any) -> None:
    path, sha = _file(tmp_path / "a", 11 * parts.PART_BYTES)
    events = objects._s3.meta.events

    def refuse(params: Any, **_: Any) -> None:
        if params["PartNumber"] > 3:
            raise ConnectionClosedError(endpoint_url="http://gone")

    events.register("provide-client-params.s3.UploadPart", refuse)
    with pytest.raises(Unavailable):
        objects.put(KEY, path, sha, journal)
    events.unregister("provide-client-params.s3.UploadPart", refuse)
    begun = objects.uploads("")
    assert len(begun) == 1
    arrived = {
        p["PartNumber"] for p in objects._s3.list_parts(Bucket="rows", Key=KEY, UploadId=begun[0]["UploadId"])["Parts"]
    }
    assert arrived == {1, 2, 3}
    sent, opened = _calls(objects, "UploadPart"), _calls(objects, "CreateMultipartUpload")
    journal.notes.clear()  # as if killed before the note was written
    objects.put(KEY, path, sha, journal)
    assert sorted(call["PartNumber"] for call in sent) == list(range(4, 12))
    assert opened == []
    assert hashlib.sha256(objects.read(KEY)).hexdigest() == sha
    assert objects.uploads("") == []


def test_a_part_that_holds_something_else_is_sent_again(objects: Objects, tmp_path: Path, journal: Any) -> None:
    path, sha = _file(tmp_path / "a", 2 * parts.PART_BYTES)
    upload = objects._s3.create_multipart_upload(Bucket="rows", Key=KEY, ChecksumAlgorithm=parts.ALGORITHM,
                                                 Metadata={"cloudtune-sha256": sha})["UploadId"]  # fmt: skip
    objects._s3.upload_part(Bucket="rows", Key=KEY, UploadId=upload, PartNumber=1, Body=b"x" * parts.PART_BYTES)
    sent = _calls(objects, "UploadPart")
    objects.put(KEY, path, sha, journal)
    assert sorted(call["PartNumber"] for call in sent) == [1, 2]
    assert hashlib.sha256(objects.read(KEY)).hexdigest() == sha


def test_uploads_left_over_are_aborted_and_others_are_let_be(objects: Objects, tmp_path: Path, journal: Any) -> None:
    path, sha = _file(tmp_path / "a", SINGLE_BYTES + 1)
    for key in (KEY, KEY, f"{KEY}.other"):
        objects._s3.create_multipart_upload(Bucket="rows", Key=key, ChecksumAlgorithm=parts.ALGORITHM,
                                            Metadata={"cloudtune-sha256": sha})  # fmt: skip
    objects.put(KEY, path, sha, journal)
    assert [upload["Key"] for upload in objects.uploads("")] == [f"{KEY}.other"]


def test_an_upload_that_was_begun_with_another_checksum_is_not_gone_on_with(
    objects: Objects, tmp_path: Path, journal: Any
) -> None:
    """S3 refuses parts whose checksum is of another kind than its upload was begun with."""
    path, sha = _file(tmp_path / "a", SINGLE_BYTES + 1)
    begun = objects._s3.create_multipart_upload(Bucket="rows", Key=KEY, ChecksumAlgorithm="SHA256")["UploadId"]
    journal.notes["upload"] = begun
    opened = _calls(objects, "CreateMultipartUpload")
    objects.put(KEY, path, sha, journal)
    assert len(opened) == 1
    assert journal.notes["upload"] != begun
    assert objects.uploads("") == []


@pytest.mark.parametrize(("held_bytes", "parts_held"), [(1 << 20, s3.AT_ONCE), (5000, 5), (10, 2)])
def test_a_file_is_read_once_and_few_parts_of_it_are_held(
    objects: Objects, tmp_path: Path, journal: Any, monkeypatch: pytest.MonkeyPatch, held_bytes: int, parts_held: int
) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    monkeypatch.setattr(s3, "SINGLE_BYTES", 10)
    monkeypatch.setattr(s3, "HELD_BYTES", held_bytes)
    path, sha = _file(tmp_path / "a", 30_000)
    arrived: list[int] = []
    most = [0]
    read, seen = parts.read_parts, [0]

    def counted(path: Path) -> Iterator[Any]:
        for part, content in read(path):
            seen[0] += 1
            most[0] = max(most[0], seen[0] - len(arrived))
            yield part, content

    monkeypatch.setattr(s3, "read_parts", counted)
    objects._s3.meta.events.register("after-call.s3.UploadPart", lambda **_: arrived.append(1))
    objects.put(KEY, path, sha, journal)
    assert seen[0] == len(arrived) == 30
    assert most[0] <= parts_held + 1
    assert objects.read(KEY) == path.read_bytes()


def test_removal_of_one_and_of_all_below(objects: Objects) -> None:
    for key in ("a/1", "a/2", "a/2b", "b"):
        objects.write(key, b"x")
    assert objects.delete("a/2") == 1
    assert [entry["Key"] for entry in objects.list("")] == ["a/1", "a/2b", "b"]
    assert objects.delete("a/") == 2
    assert objects.delete("a/") == 0
    assert [entry["Key"] for entry in objects.list("")] == ["b"]


def test_lists_are_read_to_their_end(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        objects.write(f"k/{number}", b"x")
    objects._s3.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 2}
    )
    assert [entry["Key"] for entry in objects.list("k/")] == [f"k/{number}" for number in range(7)]


def test_a_key_of_kms_encrypts_both_kinds_of_upload(objects: Objects, tmp_path: Path, journal: Any) -> None:
    sealed = Objects(objects._clients, "rows", "alias/mine")
    for name, size in (("small", 10), ("large", SINGLE_BYTES + 1)):
        path, sha = _file(tmp_path / name, size)
        sealed.put(name, path, sha, journal)
        head = sealed._s3.head_object(Bucket="rows", Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/mine")


def test_any_size_is_cut_into_few_enough_parts() -> None:
    for size in (1, parts.PART_BYTES, parts.PART_BYTES + 1, 5 * 10**12):
        cuts = parts.cut(size)
        assert sum(part.size for part in cuts) == size
        assert len(cuts) <= parts.MOST_PARTS
        assert [part.number for part in cuts] == list(range(1, len(cuts) + 1))


def test_a_part_of_an_object_is_read_alone(objects: Objects) -> None:
    objects.write(KEY, b"0123456789")
    seen = _calls(objects, "GetObject")
    assert (objects.read_part(KEY, 3, 4), objects.read_part(KEY, 8, 100)) == (b"3456", b"89")
    assert [requested["Range"] for requested in seen] == ["bytes=3-6", "bytes=8-107"]
    with pytest.raises(JobNotFound):
        objects.read_part(f"{KEY}.none", 0, 1)
    assert objects.region() == "us-east-1"
    with pytest.raises(JobNotFound):
        Objects(objects._clients, "surely-not-there").region()
