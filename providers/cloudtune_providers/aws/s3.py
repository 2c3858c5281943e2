"""Objects in one bucket: keys contain the content's hash, and uploads resume after an interruption.

Files up to 8 MiB are sent in one request, larger ones in parts with explicit calls, because managed transfers cannot
be resumed. An interrupted multipart upload is found by its key, whose hash identifies the parts, and is continued.
Leftover uploads are aborted when the object exists. A file is read once, for its parts and its hash.
"""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import (
    BackendError,
    Conflict,
    DataError,
    InvalidRequest,
    InvalidResponse,
    JobNotFound,
    PermissionDenied,
    Unavailable,
)
from cloudtune_providers.aws.parts import ALGORITHM, Part, checksum, is_same, read_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from cloudtune.backend import Journal
    from cloudtune_providers.aws.clients import Clients

SINGLE_BYTES = 8 * 1024 * 1024
AT_ONCE = 8
"""Number of parts that are uploaded at the same time."""
HELD_BYTES = 64 * 1024 * 1024
"""Memory limit of these parts together; of very large parts, two are still uploaded at a time."""
_HASH_KEY = "cloudtune-sha256"
_CHUNK = 4 * 1024 * 1024


class Objects:
    """The objects of one bucket. ``kms_key`` encrypts written objects. Thread-safe."""

    def __init__(self, clients: Clients, bucket: str, kms_key: str | None = None) -> None:
        self._clients = clients
        self.bucket = bucket
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

    @property
    def _s3(self) -> Any:
        return self._clients.client("s3")

    def url(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, key: str, path: Path, sha256: str, journal: Journal) -> dict[str, Any]:
        """Upload the file under the key once, atomically. Raises DataError if its bytes do not match ``sha256``.

        After an interruption, only the missing parts are uploaded.
        """
        size = path.stat().st_size
        if size <= SINGLE_BYTES:
            self.write(key, path.read_bytes(), sha256)
        else:
            _Multipart(self, key, path, sha256, journal).run()
        return {"key": key, "url": self.url(key), "bytes": size, "sha256": sha256}

    def write(self, key: str, content: bytes, sha256: str | None = None) -> None:
        """Write a few bytes. Raises DataError if they do not match ``sha256``, if given."""
        found = hashlib.sha256(content)
        if sha256 is not None and found.hexdigest() != sha256:
            raise changed(key)
        with self._clients.asking(f"upload of {self.url(key)}", missing=InvalidRequest):
            answer = self._s3.put_object(
                Bucket=self.bucket, Key=key, Body=content, ChecksumSHA256=_base64(found.digest()),
                Metadata={_HASH_KEY: found.hexdigest()}, **self._encryption,
            )  # fmt: skip
            _confirmed(answer)

    # -- reading ---------------------------------------------------------------------------------------------------

    def find(self, key: str, sha256: str, size: int | None = None) -> Found:
        """Return whether the object with this content exists. Raises Conflict if the key has other content."""
        try:
            with self._clients.asking(f"check of {self.url(key)}"):
                head = _confirmed(self._s3.head_object(Bucket=self.bucket, Key=key))
        except JobNotFound:
            return Absent()
        stored = head.get("Metadata", {}).get(_HASH_KEY)
        if stored != sha256 or (size is not None and head["ContentLength"] != size):
            raise Conflict(
                f"{self.url(key)} already exists with different content",
                hint="choose another bucket or prefix, or delete it",
            )
        return Done(outputs={"key": key, "url": self.url(key), "bytes": head["ContentLength"], "sha256": sha256})

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises JobNotFound."""
        with self._clients.asking(f"read {self.url(key)}"):
            return bytes(self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def read_part(self, key: str, start: int, length: int) -> bytes:
        """Read ``length`` bytes, or fewer at the end. ``start`` has to be within the object. Raises JobNotFound."""
        span = f"bytes={start}-{start + length - 1}"
        with self._clients.asking(f"read {self.url(key)}"):
            return bytes(self._s3.get_object(Bucket=self.bucket, Key=key, Range=span)["Body"].read())

    def region(self) -> str | None:
        """Return the bucket's region, if it is available. Raises JobNotFound."""
        with self._clients.asking(f"bucket {self.bucket}"):
            response = self._s3.head_bucket(Bucket=self.bucket)
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        found = response.get("BucketRegion") or headers.get("x-amz-bucket-region")
        return str(found) if found else None

    def fetch(self, key: str, path: Path) -> None:
        """Download the object to a file in chunks. Raises JobNotFound."""
        with self._clients.asking(f"read {self.url(key)}"), path.open("wb") as file:
            for piece in self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(_CHUNK):
                file.write(piece)

    def lines(self, key: str) -> Iterator[str]:
        """Iterate over the object's lines of text."""
        with self._clients.asking(f"read {self.url(key)}"):
            for line in self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].iter_lines():
                yield line.decode("utf-8", "replace")

    def list(self, prefix: str) -> Sequence[dict[str, Any]]:
        """Key, Size and LastModified of all objects with that key prefix, in the order of their keys."""
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        with self._clients.asking(f"list of {self.url(prefix)}", missing=InvalidRequest):
            while True:
                page = self._s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)
                found += page.get("Contents", ())
                if not page.get("IsTruncated"):
                    return found
                more = {"ContinuationToken": page["NextContinuationToken"]}

    # -- deleting --------------------------------------------------------------------------------------------------

    def delete(self, place: str) -> int:
        """Delete one object, or all below ``place`` if it ends in a slash, and unfinished uploads. Returns how many."""
        keys = [entry["Key"] for entry in self.list(place) if place.endswith("/") or entry["Key"] == place]
        for start in range(0, len(keys), 1000):
            batch = [{"Key": key} for key in keys[start : start + 1000]]
            with self._clients.asking(f"removal of {self.url(place)}", missing=InvalidRequest):
                answer = self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})
            if errors := answer.get("Errors"):
                raise BackendError(f"removal of {self.url(errors[0]['Key'])}: {errors[0].get('Message')}")
        with suppress(PermissionDenied):  # few identities have permission to list them, and there seldom are any
            for begun in self.uploads(place):  # a delayed request may have started another one
                if place.endswith("/") or begun["Key"] == place:
                    self.abort(begun["Key"], begun["UploadId"])
        return len(keys)

    def uploads(self, prefix: str) -> Sequence[dict[str, Any]]:
        """Return multipart uploads that were neither completed nor aborted, oldest first."""
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        with self._clients.asking(f"list of uploads to {self.url(prefix)}", missing=InvalidRequest):
            while True:
                page = self._s3.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, **more)
                found += page.get("Uploads", ())
                if not page.get("IsTruncated"):
                    return sorted(found, key=lambda upload: (str(upload.get("Initiated")), upload["UploadId"]))
                more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload and its parts. Succeeds if it does not exist."""
        try:
            with self._clients.asking(f"end of an upload to {self.url(key)}"):
                self._s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        except JobNotFound:
            return


class _Multipart:
    """A file that is uploaded in parts."""

    def __init__(self, objects: Objects, key: str, path: Path, sha256: str, journal: Journal) -> None:
        self._o = objects
        self._key = key
        self._path = path
        self._sha256 = sha256
        self._journal = journal
        self._where = {"Bucket": objects.bucket, "Key": key}

    def run(self) -> None:
        upload = self._opened()
        there = self._there(upload)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="part") as threads:
            try:
                finished, found = self._sent(threads, upload, there)
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        if found != self._sha256:
            self._o.abort(self._key, upload)
            raise changed(str(self._path))
        self._complete(upload, finished)
        for left in self._begun():
            self._o.abort(self._key, left["UploadId"])

    def _sent(
        self, threads: ThreadPoolExecutor, upload: str, there: dict[int, dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], str]:
        """The list of parts for completing the upload, and the SHA-256 of all their bytes."""
        whole, finished = hashlib.sha256(), []
        under_way: set[Future[dict[str, Any]]] = set()
        for part, content in read_parts(self._path):
            if len(content) < part.size:  # the file was truncated: its hash will not match
                break
            under_way.add(threads.submit(self._part, upload, part, content, there.get(part.number)))
            whole.update(content)
            if len(under_way) >= min(AT_ONCE, max(2, HELD_BYTES // part.size)):
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                finished += [future.result() for future in done]
        finished += [future.result() for future in under_way]
        return sorted(finished, key=lambda part: int(part["PartNumber"])), whole.hexdigest()

    def _begun(self) -> list[dict[str, Any]]:
        return [upload for upload in self._o.uploads(self._key) if upload["Key"] == self._key]

    def _ours(self) -> list[str]:
        """Uploads that can be continued: S3 accepts only the checksum algorithm with which an upload began."""
        return [one["UploadId"] for one in self._begun() if one.get("ChecksumAlgorithm", ALGORITHM) == ALGORITHM]

    def _opened(self) -> str:
        """Return an unfinished upload of the key, which identifies the content, or a new one."""
        begun = self._ours()
        noted = self._journal.notes.get("upload")
        if begun:
            return str(noted if noted in begun else begun[0])
        with self._o._clients.asking(f"upload of {self._o.url(self._key)}", missing=InvalidRequest):
            made = self._o._s3.create_multipart_upload(
                **self._where, ChecksumAlgorithm=ALGORITHM, Metadata={_HASH_KEY: self._sha256}, **self._o._encryption
            )
        self._journal.note("upload", made["UploadId"])
        return str(made["UploadId"])

    def _there(self, upload: str) -> dict[int, dict[str, Any]]:
        """The parts that have arrived, by number."""
        found: dict[int, dict[str, Any]] = {}
        more: dict[str, int] = {}
        with self._asking("list of parts"):
            while True:
                page = self._o._s3.list_parts(**self._where, UploadId=upload, **more)
                found |= {part["PartNumber"]: part for part in page.get("Parts", ())}
                if not page.get("IsTruncated"):
                    return found
                more = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def _part(self, upload: str, part: Part, content: bytes, there: dict[str, Any] | None) -> dict[str, Any]:
        """A part's entry for completing the upload; sends it only if the same bytes have not arrived yet."""
        mark = checksum(content)
        fields = {"PartNumber": part.number, f"Checksum{ALGORITHM}": mark}
        if there is not None and is_same(there, content, mark):
            return fields | {"ETag": there["ETag"]}
        with self._asking(f"part {part.number}"):
            answer = self._o._s3.upload_part(**self._where, UploadId=upload, Body=content, **fields)
        return fields | {"ETag": answer["ETag"]}

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> None:
        with self._asking("completion"):
            done = self._o._s3.complete_multipart_upload(
                **self._where, UploadId=upload, MultipartUpload={"Parts": parts}
            )
            _confirmed(done)

    def _asking(self, what: str) -> Any:
        # Another process that uploads the same rows may have completed it; a retry finds the object.
        return self._o._clients.asking(f"{what} of the upload of {self._o.url(self._key)}", missing=Unavailable)


def _confirmed(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the response about an object, if it has an ETag, as S3 always sends. Raises InvalidResponse."""
    if not answer.get("ETag"):
        raise InvalidResponse("the response has no ETag, so it is not from S3")
    return answer


def changed(what: str) -> DataError:
    """The error for bytes that differ from the planned ones."""
    return DataError(f"{what}: the content has changed since the plan", hint="plan and submit again")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
