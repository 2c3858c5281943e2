"""What turns the rows of a base model into its inputs: a tokenizer, or the processor of images or recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.heads import HEADS
from cloudtune_trainer.model_folder import check_model_folder
from cloudtune_trainer.models import found, load_tokenizer
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import TASKS

if TYPE_CHECKING:
    from cloudtune_trainer.models import BaseModel


def reads_of(method: str) -> str:
    """What the models of that method read: text, image or audio."""
    task = TASKS.get(method, "")
    return HEADS[task].reads if task in HEADS else "text"


def load_processor(base: BaseModel, reads: str) -> Any:
    """The tokenizer of a text model, or the processor of another one.

    Image processors compute with Pillow and NumPy, so that they need no torchvision.

    Raises:
        TrainingProblem: ``model_not_found``, for files that are damaged; ``bad_spec``, if the model has no processor.

    """
    if reads == "text":
        return load_tokenizer(base)
    with found(base):
        check_model_folder(Path(base.path))
        try:
            from transformers import AutoImageProcessor, AutoProcessor

            if reads == "image":
                return AutoImageProcessor.from_pretrained(base.path, backend="pil", **base.loading)
            processor = AutoProcessor.from_pretrained(base.path, **base.loading)
        except (OSError, ValueError) as error:
            what = f"{base.path} has no processor that reads an {reads}: {str(error).splitlines()[0]}"
            raise TrainingProblem("bad_spec", what, f"Use a model for {reads} input.") from error
    if not (hasattr(processor, "feature_extractor") and hasattr(processor, "tokenizer")):
        what = f"{base.path} has no tokenizer for transcripts, or no feature extractor for recordings"
        raise TrainingProblem("bad_spec", what, "Use a model of speech recognition, such as Whisper.")
    return processor
