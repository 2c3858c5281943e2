"""Inference with a model that has a classification head: the outputs of token ids, in padded batches."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from cloudtune_trainer import models
from cloudtune_trainer.generate import load_tuned
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import logits_by_length
from cloudtune_trainer.tuned import read_tuned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class HeadModel:
    """A trained model with a head. Calls from several threads are serialized."""

    def __init__(self, network: Any, tokenizer: Any, tuned: dict[str, Any]) -> None:
        """``tuned`` is the document of the model's folder."""
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._labels = tuple(tuned["labels"])
        self._max_length = int(tuned["max_length"])
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path | str, *, base: bool = False, device: str = "auto", trust_remote_code: bool = False
    ) -> Self:
        """Load the model of the folder that training wrote. Raises ``bad_data`` for its base model."""
        from cloudtune_trainer.devices import Devices

        if base:
            what = "the base model has no trained head: it knows no labels and no scores"
            raise TrainingProblem("bad_data", what, "Ask the tuned model alone.")
        folder = Path(folder)
        tuned = read_tuned(folder)
        if not tuned.get("labels"):
            what = f"{folder} contains no model with a trained head, but a model of the method {tuned['method']}"
            raise TrainingProblem("model_not_found", what, "Use the model folder of a run with that method.")
        devices = Devices(device, "auto")
        dtype = devices.compute if devices.device.type != "cpu" else torch.float32
        network = load_tuned(folder, tuned, dtype=dtype, trust_remote_code=trust_remote_code)
        tokenizer = models.load_tokenizer(models.BaseModel(str(folder)))
        return cls(network.to(devices.device), tokenizer, tuned)

    def _outputs(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """The head's outputs in fp32, [rows, outputs]."""
        inputs = padded([np.asarray(row) for row in ids], padding_of(self._tokenizer) or 0)
        device = next(self._network.parameters()).device
        with self._lock, torch.inference_mode():
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            return logits_by_length(self._network, inputs).float().cpu()


def padded(rows: Sequence[NDArray[Any]], padding: int) -> dict[str, torch.Tensor]:
    """The rows padded on the right, with their attention mask."""
    ids = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
