"""The failures of a training run, with stable codes, and the classification of exceptions.

Does not import torch: its errors are recognized by class names and messages, so that a failed import is classified too.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cloudtune_trainer.folder import DISK_FULL_ERRNOS

if TYPE_CHECKING:
    from pathlib import Path


RESUME_HINT = "`cloudtune resume` continues from the newest valid checkpoint; without one, submit with --again"


class TrainingProblem(Exception):
    """A classified failure: ``code`` is stable, ``hint`` is the recommended action.

    ``interrupted``: a signal from outside ended the run.
    """

    def __init__(self, code: str, message: str, hint: str | None = None, *, interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted
        self.code = code
        self.message = message
        self.hint = hint


LOST_PROCESS = "lost_process"
"""The code for an error of a group's communication: another process has ended, and its launcher knows why."""
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection was likely closed",
         "nccl communicator was aborted")  # fmt: skip
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "unable to allocate",
)
_MEMORY_HINT = (
    "Use a smaller batch (more gradient_accumulation_steps keeps the result), a smaller max_length, "
    "gradient_checkpointing, or an adapter instead of full training."
)


def classify(error: BaseException, log: Path) -> TrainingProblem:
    """Return the problem of an exception. Unknown exceptions are ``error``, with the path of the log."""
    for link in _chain(error):
        found = recognized(link)
        if found is not None:
            return found
    return TrainingProblem("error", f"{type(error).__name__}: {error}", f"See {log} for details")


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__ or current.__context__
    return links


def recognized(error: BaseException) -> TrainingProblem | None:
    """The problem of this exception alone, or None."""
    if isinstance(error, TrainingProblem):
        return error
    text = str(error)
    low = text.lower()
    kind = type(error).__name__
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (kind == "OutOfMemoryError" or any(words in low for words in _OUT_OF_MEMORY))
    ):
        return TrainingProblem("out_of_memory", f"out of memory: {text or kind}", _MEMORY_HINT)
    if isinstance(error, RuntimeError) and any(words in low for words in _LOST):
        what = "the connection to another process of the group was lost"
        return TrainingProblem(LOST_PROCESS, what, RESUME_HINT, interrupted=True)
    number = getattr(error, "errno", None)
    # safetensors, written in Rust, has the error number in the message only
    full = [f"(os error {code})" for code in DISK_FULL_ERRNOS]
    if number in DISK_FULL_ERRNOS or "no space left on device" in low or any(words in low for words in full):
        return TrainingProblem("disk_full", f"no disk space left: {text}", "Free disk space, then resume the job.")
    if isinstance(error, PermissionError) or number in (errno.EACCES, errno.EROFS):
        return TrainingProblem("no_permission", text, "Allow this user to read and write there.")
    if isinstance(error, ModuleNotFoundError):
        return TrainingProblem(
            "not_installed", text, "Install the trainer's packages: pip install torch transformers peft accelerate"
        )
    return None
