"""Encoded data before the upload: one file for each (content, format), named by the content's hash.

Jobs and processes share the files. A file is written under a temporary name and renamed, so it is always complete.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.data.media.addressing import media_folder
from cloudtune.errors import LedgerError
from cloudtune.files.private_files import private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.plan import Plan, Step
    from cloudtune.spec import JobSpec


class Spool:
    """A folder of encoded files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, step: Step, spec: JobSpec) -> dict[str, Any]:
        """Execute an ``encode`` step; outputs path, rows, bytes, sha256.

        Raises DataError if the rows are no longer those that were planned.
        """
        from cloudtune import data

        request = step.request
        try:
            private_folder(self.folder)
        except OSError as error:
            raise LedgerError(f"cannot use the folder of encoded rows: {error}") from error
        final = self._place(step)
        aside = self.folder / f".{final.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            encoded = data.encode(
                spec.data,
                split=request["split"],
                format=request["format"],
                to=aside,
                method=spec.method.name,
                expect_sha256=request["sha256"],
            )
            _place_media(media_folder(aside), media_folder(final))  # before the rows: they always have their files
            aside.replace(final)
        finally:
            aside.unlink(missing_ok=True)
            shutil.rmtree(media_folder(aside), ignore_errors=True)
        return {"path": str(final), "rows": encoded.rows, "bytes": encoded.bytes, "sha256": encoded.sha256}

    def _place(self, step: Step) -> Path:
        return self.folder / f"{step.request['sha256'][:32]}.{step.request['format']}.jsonl"

    def forget(self, plan: Plan) -> None:
        """Delete the encoded files of that plan. Other jobs that need one encode it again."""
        for step in plan.steps:
            if step.kind == "encode":
                self._place(step).unlink(missing_ok=True)
                shutil.rmtree(media_folder(self._place(step)), ignore_errors=True)

    def holds(self, outputs: Mapping[str, Any]) -> bool:
        """Whether the complete file of an earlier ``encode`` still exists."""
        path = outputs.get("path")
        return isinstance(path, str) and Path(path).is_file() and Path(path).stat().st_size == outputs.get("bytes")


def _place_media(aside: Path, final: Path) -> None:
    """Give the folder its name. Where another one has it, perhaps half deleted, fill that one with the files."""
    if not aside.is_dir():
        return
    try:
        aside.rename(final)
    except OSError:
        for file in aside.iterdir():
            file.replace(final / file.name)
