"""The run folder, as back ends read and write it. Standard library only."""

from __future__ import annotations

from cloudtune_trainer import checkpoints
from cloudtune_trainer.checkpoints import Saved
from cloudtune_trainer.folder import (
    DISK_FULL_ERRNOS,
    FINAL_STATES,
    STATES,
    RunFolder,
    append_line,
    now,
    read_json,
    read_lines,
    sync_directory,
    write_json,
)
from cloudtune_trainer.private_files import keep_private, opener, private_folder
from cloudtune_trainer.problems import RESUME_HINT
from cloudtune_trainer.tuned import TUNED

__all__ = [
    "DISK_FULL_ERRNOS",
    "FINAL_STATES",
    "RESUME_HINT",
    "STATES",
    "TUNED",
    "RunFolder",
    "Saved",
    "append_line",
    "checkpoints",
    "keep_private",
    "now",
    "opener",
    "private_folder",
    "read_json",
    "read_lines",
    "sync_directory",
    "write_json",
]
