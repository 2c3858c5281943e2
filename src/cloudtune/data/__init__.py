"""Data: converts files to canonical records, checks, splits and fingerprints them, and writes back-end formats.

Names are imported on first use, because worker processes for large files need few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudtune.data.checks.preparing import prepare
    from cloudtune.data.dataset import Dataset
    from cloudtune.data.encoding import Encoded, encode
    from cloudtune.data.report import CheckReport, check, convert

__all__ = ["CheckReport", "Dataset", "Encoded", "check", "convert", "encode", "prepare"]
_HOMES = {
    "CheckReport": "report", "Dataset": "dataset", "Encoded": "encoding", "check": "report", "convert": "report",
    "encode": "encoding", "prepare": "checks.preparing",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"cloudtune.data.{_HOMES[name]}"), name)
