"""A model's files, in a local folder or under an S3 prefix: names, sizes, and bytes on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cloudtune.files.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from cloudtune_providers.aws.s3 import Objects


class ModelFiles(Protocol):
    """The files that the import rules read."""

    @property
    def where(self) -> str:
        """The folder, or the prefix's URI."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Every file's name below that, with slashes, and its size."""

    def place(self, name: str) -> str:
        """The path or URI of a file, for messages."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of a file. Raises OSError or CloudtuneError."""


class LocalFiles:
    """The files of a folder, without hidden ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")) if path.is_file())
        kept = [(name, path) for name, path in found if not any(part.startswith(".") for part in name.parts)]
        self.where = str(folder)
        self.sizes = {name.as_posix(): path.stat().st_size for name, path in kept}

    def place(self, name: str) -> str:
        """See `ModelFiles`."""
        return str(self._folder / name)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See `ModelFiles`."""
        with open_regular(self._folder / name) as content:
            content.seek(start)
            return content.read(-1 if length is None else length)


class PlacedFiles:
    """The files under a prefix, which ends in a slash, from an existing listing."""

    def __init__(self, objects: Objects, prefix: str, listed: Sequence[Mapping[str, Any]]) -> None:
        self._objects = objects
        self._prefix = prefix
        self._listed = {str(entry["Key"])[len(prefix) :]: entry for entry in listed if entry["Key"].startswith(prefix)}
        self._listed.pop("", None)  # a folder marker, created by the console
        self.where = objects.url(prefix)
        self.sizes = {name: int(entry["Size"]) for name, entry in self._listed.items() if not name.endswith("/")}

    def place(self, name: str) -> str:
        """See `ModelFiles`."""
        return f"{self.where}{name}"

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See `ModelFiles`. Only small reads are used."""
        left = self.sizes[name] - start
        if left <= 0:
            return b""
        return self._objects.read_part(f"{self._prefix}{name}", start, left if length is None else min(left, length))

    def versions(self) -> list[list[Any]]:
        """Name, size and ETag of each file: they change with the model."""
        return [[name, self.sizes[name], str(self._listed[name].get("ETag", ""))] for name in sorted(self.sizes)]
