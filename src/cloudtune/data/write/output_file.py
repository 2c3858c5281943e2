"""Creates the temporary file that later replaces an output file, so that a failed write leaves nothing behind."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from cloudtune.errors import DataError, Problem

if TYPE_CHECKING:
    from pathlib import Path


def temporary_file(output: Path) -> tuple[int, str]:
    """Create an empty file in the folder of ``output`` and return its descriptor and its path.

    Raises DataError if ``output`` is a folder, a device, a FIFO or a socket: to rename a file to such a path fails, or
    removes the device from the system.
    """
    if output.exists() and not output.is_file():
        problem = Problem(code="output", message=f"{output} exists and is not a regular file", fix="use another path")
        raise DataError([problem])
    output.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
