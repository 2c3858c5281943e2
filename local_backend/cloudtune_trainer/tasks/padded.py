"""What tasks with a head share, and seq2seq: loading, and rows of token ids that are padded, not packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from cloudtune_trainer import models
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.heads import Head
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.processors import reads_of
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.run_spec import TASKS
from cloudtune_trainer.samples import Cuts, nothing_left, starts_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec

PART = 8
"""Rows of one forward pass in predictions of long texts."""


class TaskWithHead(Protocol):
    """What `load_with_head` needs of a task, and what it sets."""

    spec: RunSpec
    padding: int
    random_weights: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """See `Task.labels`."""


def load_with_head(
    task: TaskWithHead, base: BaseModel, tokenizer: Any, *, dtype: torch.dtype, weights: Path | None,
    dropout: float | None,
) -> Any:  # fmt: skip
    """The task's model. Weights that are not in the base model start from the same random values for the same seed.

    Sets the task's ``padding`` and ``random_weights``.
    """
    spec = task.spec
    task.padding = 0 if reads_of(spec.method) != "text" else padding_of(tokenizer) or 0
    head = Head(TASKS[spec.method], task.padding, task.labels, spec.classification.problem)
    random = set[str]() if head.starts_random and weights is None else None
    torch.manual_seed(spec.seed)
    network = models.load_model(base, dtype=dtype, weights=weights, dropout=dropout, head=head, new_head=random)
    task.random_weights = tuple(sorted(random or ()))
    return network


def check_fast(tokenizer: Any, places: str) -> None:
    """Raises ``bad_spec`` for a tokenizer that does not tell which characters, or words, its tokens are."""
    if not tokenizer.is_fast:
        what = f"{type(tokenizer).__name__} does not map tokens to {places}"
        raise TrainingProblem("bad_spec", what, "Use a model with a fast tokenizer (tokenizer.json).")


def logits_in_parts(model: Any, inputs: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    """`logits_by_length`, with at most that many rows in a forward pass."""
    total = len(inputs["input_ids"])
    return torch.cat([
        logits_by_length(model, {name: value[first : first + rows] for name, value in inputs.items()})
        for first in range(0, total, rows)
    ])  # fmt: skip


def rows_at_once(spec: RunSpec, width: int) -> int:
    """Rows of that width in a forward pass: as many as in a part of a training step, or in an evaluation batch."""
    hyper = spec.hyperparameters
    return max(-(-hyper.batch_size // hyper.gradient_accumulation_steps), hyper.token_budget // width)


def groups_of(row_of: NDArray[np.int64]) -> list[list[int]]:
    """The samples of each row, from the row of each sample."""
    firsts = np.flatnonzero(np.diff(row_of, prepend=-1)).tolist()
    return [list(range(a, b)) for a, b in zip(firsts, [*firsts[1:], len(row_of)], strict=True)]


def fields_of(record: Record, row: int, *names: str) -> tuple[Any, ...]:
    """The values of these fields. Raises ``bad_data`` that names the row if one is missing."""
    missing = [name for name in names if name not in record]
    if missing:
        needed = " and ".join(f'"{name}"' for name in names)
        raise TrainingProblem("bad_data", f"row {row}: it requires {needed}", "Use rows of this method's kind.")
    return tuple(record[name] for name in names)


def encoded(texts: Sequence[str], tokenizer: Any, max_length: int) -> tuple[list[list[int]], Cuts]:
    """Token ids of each text with the tokenizer's own special tokens, and which texts were cut."""
    cuts = Cuts()
    ids = [list(row) for row in tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]]
    for place, row in enumerate(ids):
        if len(row) > max_length:
            cuts.truncated.append(place + 1)
            ids[place] = list(tokenizer(texts[place], truncation=True, max_length=max_length)["input_ids"])
    return ids, cuts


def joined(
    rows: Sequence[Sequence[int]], cuts: Cuts, max_length: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64], Cuts]:
    """The first fields of `Samples` for rows that are not empty. Raises ``bad_data`` if there is none."""
    if not rows:
        raise nothing_left(cuts, max_length)
    ids = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    return ids, np.zeros(len(ids), dtype=np.bool_), starts_of(rows), cuts


def filled(rows: Sequence[Sequence[int] | NDArray[Any]], value: int) -> torch.Tensor:
    """The rows as one matrix. Shorter rows have ``value`` at their end."""
    cells = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for place, row in enumerate(rows):
        cells[place, : len(row)] = row
    return torch.from_numpy(cells)


def padded(rows: Sequence[Sequence[int] | NDArray[Any]], padding: int) -> dict[str, torch.Tensor]:
    """The padded rows with their attention mask."""
    return {"input_ids": filled(rows, padding), "attention_mask": filled([np.ones(len(row)) for row in rows], 0)}
