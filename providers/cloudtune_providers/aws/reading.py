"""Rows on S3: finds objects and opens them from any byte offset. One attempt each; core retries and resumes.

Credentials, region and endpoint come from AWS's default chain: environment, profile, instance role.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, cast

from cloudtune.data.read.remote import RemoteFile
from cloudtune.errors import DataError, JobNotFound, Problem
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions

if TYPE_CHECKING:
    from collections.abc import Callable


class S3Store:
    """Objects of any bucket that the credentials can read. ``factory`` can create the client instead."""

    def __init__(self, factory: Callable[[str], Any] | None = None) -> None:
        import boto3  # noqa: F401 - a missing package is reported here, not at the first request

        self._clients = Clients(AwsOptions(), factory)

    @property
    def _s3(self) -> Any:
        return self._clients.client("s3")

    def get(self, uri: str) -> RemoteFile | None:
        """See `cloudtune.data.read.remote.Store`."""
        bucket, key = _parts(uri)
        try:
            with self._clients.asking(uri):
                found = self._s3.head_object(Bucket=bucket, Key=key)
        except JobNotFound:
            return None
        return RemoteFile(uri, int(found["ContentLength"]), str(found["ETag"]))

    def list(self, prefix: str) -> list[RemoteFile]:
        """See `cloudtune.data.read.remote.Store`."""
        bucket, start = _parts(prefix)
        found: list[RemoteFile] = []
        more: dict[str, str] = {}
        while True:
            with self._clients.asking(prefix):
                page = self._s3.list_objects_v2(Bucket=bucket, Prefix=start, **more)
            found += [
                RemoteFile(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), str(entry["ETag"]))
                for entry in page.get("Contents", ())
            ]
            if not page.get("IsTruncated"):
                return sorted(found)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def open(self, file: RemoteFile, start: int) -> IO[bytes]:
        """See `cloudtune.data.read.remote.Store`."""
        bucket, key = _parts(file.uri)
        try:
            with self._clients.asking(file.uri):
                answer = self._s3.get_object(Bucket=bucket, Key=key, IfMatch=file.version, Range=f"bytes={start}-")
        except Exception as error:
            if _is_changed(error):
                fix = "run the command again"
                message = "the object was replaced during the read"
                raise DataError([Problem(code="data_changed", message=message, file=file.uri, fix=fix)]) from error
            raise
        return cast("IO[bytes]", _Body(answer["Body"], self._clients, file.uri))


class _Body:
    """botocore's stream, with cloudtune's errors."""

    def __init__(self, body: Any, clients: Clients, uri: str) -> None:
        self._body, self._clients, self._uri = body, clients, uri

    def read(self, size: int = -1) -> bytes:
        """Read some bytes; none at the end."""
        with self._clients.asking(self._uri):
            return cast("bytes", self._body.read(size))

    def close(self) -> None:
        """Release the connection."""
        self._body.close()


def _parts(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises DataError."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not uri.startswith("s3://"):
        fix = "write s3://bucket/key, or s3://bucket/folder/*.jsonl"
        raise DataError([Problem(code="no_file", message="the address has no bucket", file=uri, fix=fix)])
    return bucket, key


def _is_changed(error: BaseException) -> bool:
    from cloudtune_providers.aws.errors import code_of

    return code_of(error.__cause__) in ("PreconditionFailed", "412")
