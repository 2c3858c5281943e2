"""The storage of a job's files: a bucket, or for ``compute: local`` a folder with the same keys."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from cloudtune.backend import Absent, Done, Found
from cloudtune.errors import Conflict, InvalidRequest, JobNotFound
from cloudtune.files.archives import safe_parts
from cloudtune.files.private_files import copy_private, private_folder
from cloudtune_providers.aws.s3 import Objects, changed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.backend import Journal
    from cloudtune_providers.aws.clients import Clients


_ACCESS_POINT = re.compile(r"s3://(?P<arn>arn:aws[a-z-]*:s3:[^:]*:[^:]*:accesspoint/[^/]+)/(?P<key>.*)")


class Storage(Protocol):
    """The common interface; see `Objects`."""

    def url(self, key: str) -> str:
        """The object's URI."""

    def put(self, key: str, path: Path, sha256: str, journal: Journal) -> dict[str, Any]:
        """Write the file under the key, once and atomically."""

    def write(self, key: str, content: bytes, sha256: str | None = None) -> None:
        """Write a few bytes."""

    def find(self, key: str, sha256: str, size: int | None = None) -> Found:
        """Whether the object with these bytes exists."""

    def read(self, key: str) -> bytes:
        """The object's bytes. Raises JobNotFound."""

    def fetch(self, key: str, path: Path) -> None:
        """Download the object to a file. Raises JobNotFound."""

    def list(self, prefix: str) -> Sequence[dict[str, Any]]:
        """Key, Size and LastModified of the objects with that prefix."""

    def delete(self, place: str) -> int:
        """Delete one object, or all below a key that ends in a slash."""


class Folder:
    """A folder with files named by the keys."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def url(self, key: str) -> str:
        """See `Storage`."""
        return (self._root / key).as_uri()

    def put(self, key: str, path: Path, sha256: str, journal: Journal) -> dict[str, Any]:
        """See `Storage`. Written to a temporary file, then renamed: atomic for readers."""
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                raise changed(str(path))
        target = self._place(key)
        aside = Path(tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")[1])
        shutil.copyfile(path, aside)
        aside.replace(target)
        return {"key": key, "url": self.url(key), "bytes": path.stat().st_size, "sha256": sha256}

    def write(self, key: str, content: bytes, sha256: str | None = None) -> None:
        """See `Storage`."""
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise changed(key)
        target = self._place(key)
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(aside, target)

    def _place(self, key: str) -> Path:
        target = self._root / key
        if not target.parent.is_dir():
            private_folder(target.parent)
        return target

    def find(self, key: str, sha256: str, size: int | None = None) -> Found:
        """See `Storage`."""
        try:
            with (self._root / key).open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError:
            return Absent()
        if found != sha256:
            raise Conflict(f"{self._root / key} already exists with different content", hint="move it")
        there = (self._root / key).stat().st_size
        return Done(outputs={"key": key, "url": self.url(key), "bytes": there, "sha256": sha256})

    def read(self, key: str) -> bytes:
        """See `Storage`."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            raise JobNotFound(f"{self._root / key} does not exist") from error

    def fetch(self, key: str, path: Path) -> None:
        """See `Storage`."""
        try:
            copy_private(self._root / key, path)
        except FileNotFoundError as error:
            raise JobNotFound(f"{self._root / key} does not exist") from error

    def list(self, prefix: str) -> Sequence[dict[str, Any]]:
        """See `Storage`."""
        folder = self._root / prefix.rpartition("/")[0]
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = {path.relative_to(self._root).as_posix(): path for path in files}
        return [{"Key": key, "Size": path.stat().st_size} for key, path in keys.items() if key.startswith(prefix)]

    def delete(self, place: str) -> int:
        """See `Storage`."""
        found = [entry["Key"] for entry in self.list(place) if place.endswith("/") or entry["Key"] == place]
        for key in found:
            (self._root / key).unlink(missing_ok=True)
        if place.endswith("/"):
            shutil.rmtree(self._root / place, ignore_errors=True)
        return len(found)


class Stores:
    """Opens the storage of a URI."""

    def __init__(self, clients: Clients, kms_key: str | None) -> None:
        self._clients = clients
        self._kms_key = kms_key

    def at(self, url: str) -> tuple[Storage, str]:
        """The storage of the URI, and the key in it."""
        parts = urlsplit(url)
        if point := _ACCESS_POINT.match(url):  # boto3 accepts its ARN as a bucket
            return Objects(self._clients, point["arn"], self._kms_key), point["key"]
        if parts.scheme == "s3":
            return Objects(self._clients, parts.netloc, self._kms_key), parts.path.lstrip("/")
        if parts.scheme == "file":
            return Folder(Path("/")), unquote(parts.path).lstrip("/")
        raise InvalidRequest(f"{url} is not an object address: expected s3://...")

    def fetch_all(self, url: str, folder: Path) -> None:
        """Download every object below a URI to a new folder. Raises JobNotFound if there is none."""
        store, prefix = self.at(f"{url.rstrip('/')}/")
        listed = [entry["Key"] for entry in store.list(prefix) if not entry["Key"].endswith("/")]
        if not listed:
            raise JobNotFound(f"{url} is empty")
        for key in listed:
            path = folder.joinpath(*safe_parts(key.removeprefix(prefix)))
            path.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(key, path)
