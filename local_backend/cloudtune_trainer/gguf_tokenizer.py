"""Extract the tokenizer of a GGUF file without reading the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune_trainer.model_folder import folder_of_one
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from pathlib import Path


def save_tokenizer(path: Path, to: Path) -> None:
    """Write tokenizer.json, its configuration and the chat template into a folder. Raises `TrainingProblem`."""
    from transformers import AutoTokenizer

    try:
        with folder_of_one(path) as folder:
            AutoTokenizer.from_pretrained(folder, gguf_file=path.name, trust_remote_code=False).save_pretrained(to)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # the libraries raise any exception for a damaged file
        raise TrainingProblem(
            "model_not_found",
            f"cannot read the tokenizer of {path}: {error}",
            "Check that the file is complete and that transformers supports its architecture.",
        ) from error
