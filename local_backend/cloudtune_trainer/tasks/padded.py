"""What tasks with a head share, and seq2seq: loading, and rows of token ids that are padded, not packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer import models
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.samples import Cuts, nothing_left

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloudtune_trainer.heads import Head
    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record


def load_with_head(
    base: BaseModel, head: Head, *, seed: int, dtype: torch.dtype, weights: Path | None, dropout: float | None
) -> tuple[Any, tuple[str, ...]]:
    """The model, and the names of its weights that start from random values: the same ones for the same seed."""
    torch.manual_seed(seed)
    random = set[str]()
    new_head = random if weights is None else None
    network = models.load_model(base, dtype=dtype, weights=weights, dropout=dropout, head=head, new_head=new_head)
    return network, tuple(sorted(random))


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
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    ids = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    return ids, np.zeros(len(ids), dtype=np.bool_), starts, cuts


def filled(rows: Sequence[Sequence[int] | NDArray[Any]], value: int) -> torch.Tensor:
    """The rows as one matrix. Shorter rows have ``value`` at their end."""
    cells = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for place, row in enumerate(rows):
        cells[place, : len(row)] = row
    return torch.from_numpy(cells)


def padded(rows: Sequence[Sequence[int] | NDArray[Any]], padding: int) -> dict[str, torch.Tensor]:
    """The padded rows with their attention mask."""
    return {"input_ids": filled(rows, padding), "attention_mask": filled([np.ones(len(row)) for row in rows], 0)}
