"""How token vectors become the vector of a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer.pooling_files import MODULES, POOLING, check_modules, read_pooling

if TYPE_CHECKING:
    from torch import Tensor

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.pooling_files import Pooling


def pooled(vectors: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """The vector of each text, of length 1, from token vectors [texts, width, size] padded on the right."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    if pooling == "cls":
        found = vectors[:, 0]
    elif pooling == "last":
        found = vectors[torch.arange(len(vectors), device=vectors.device), mask.sum(1) - 1]
    else:
        weights = mask.unsqueeze(-1).to(vectors)
        found = (vectors * weights).sum(1) / weights.sum(1)
    return F.normalize(found, dim=-1)


def check_modules_of(base: BaseModel) -> None:
    """Raise `TrainingProblem` ``bad_spec`` for a base model with modules that are not trained, such as Dense."""
    if (found := _stored(base, MODULES)) is not None:
        check_modules(found)


def pooling_of(base: BaseModel, config: Any) -> tuple[Pooling, str]:
    """The pooling of a base model, and why: what its files say, else the last token for decoders, else the mean.

    Raises `TrainingProblem` ``bad_spec`` for a pooling that is not supported.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    if (found := _stored(base, POOLING)) is not None:
        return read_pooling(found), f"as in {POOLING} of the base model"
    kind = type(config)
    if kind in AutoModelForCausalLM._model_mapping and kind not in AutoModelForMaskedLM._model_mapping:
        return "last", "the base model is a decoder"
    return "mean", "the base model is an encoder"


def _stored(base: BaseModel, name: str) -> Path | None:
    """A file of the base model, if it has it."""
    from transformers.utils import cached_file

    found = cached_file(
        base.path, name, revision=base.revision, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if found is None else Path(found)
