"""Predictions of a trained model that does not continue texts: the interface, and what its implementations share."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from cloudtune_trainer import models
from cloudtune_trainer.generate import Answer, load_tuned
from cloudtune_trainer.generation_settings import padding_of
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.processors import load_processor
from cloudtune_trainer.records import fault_of_turns
from cloudtune_trainer.tuned import read_tuned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Input = str | Mapping[str, Any]
    """A text, or a row without its answer."""


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one input."""

    text: str
    """The label, the answer, the generated text, or the tags, separated by spaces."""
    score: float | None = None
    """The probability of ``text``."""
    scores: dict[str, float] | None = None
    """The probability of each label, the most likely first."""
    value: float | None = None
    """The number in ``text``, of a model that predicts numbers."""
    tags: tuple[dict[str, Any], ...] | None = None
    """``token``, ``tag`` and ``score`` of each word."""
    start: int | None = None
    """Where the answer begins in the context, in characters; None if there is no answer."""
    end: int | None = None
    """Where the answer ends, exclusive."""
    vector: tuple[float, ...] | None = None
    """The vector of a text, of length 1."""


class Predictor:
    """A trained model. Calls from several threads are serialized."""

    def __init__(self, network: Any, tokenizer: Any, tuned: Mapping[str, Any]) -> None:
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.labels: tuple[str, ...] = tuple(tuned["labels"])
        self.max_length: int = tuned["max_length"]
        self.padding = padding_of(tokenizer) or 0 if self.reads == "text" else 0
        self.lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path | str, *, base: bool = False, device: str = "auto", trust_remote_code: bool = False
    ) -> Self:
        """Load the model of the folder that training wrote. Raises ``bad_data`` for a base model without this head."""
        from cloudtune_trainer.devices import Devices

        folder = Path(folder)
        tuned = read_tuned(folder)
        if base and not cls.has_base:
            what = f"the base model is not trained for {tuned['method'].replace('_', ' ')}"
            raise TrainingProblem("bad_data", what, "Use the tuned model alone.")
        devices = Devices(device, "auto")
        dtype = devices.compute if devices.device.type != "cpu" else torch.float32
        network = load_tuned(folder, tuned, dtype=dtype, base=base, trust_remote_code=trust_remote_code)
        tokenizer = load_processor(models.BaseModel(str(folder)), cls.reads)
        return cls(network.to(devices.device), tokenizer, tuned)

    reads = "text"
    """What it predicts from: text, image or audio."""
    has_base = False
    """Whether the base model can predict too."""

    def predict(self, inputs: Sequence[Input], *, batch_size: int = 8) -> Iterator[Prediction]:
        """Predictions in the order of the inputs. All inputs are checked before the first prediction."""
        yield from self.predict_rows(self.read_all(inputs), batch_size)

    def predict_rows(self, rows: Sequence[Any], batch_size: int) -> Iterator[Prediction]:
        """Predictions of what `read` returned for each input."""
        for first in range(0, len(rows), batch_size):
            with self.lock, torch.inference_mode():
                found = self.predict_batch(rows[first : first + batch_size])
            yield from found  # outside the lock: the caller may read them slowly

    def read_all(self, inputs: Sequence[Any]) -> list[Any]:
        """`read` each input. The error names its number."""
        rows = []
        for number, given in enumerate(inputs, 1):
            try:
                rows.append(self.read(given))
            except TrainingProblem as problem:
                raise TrainingProblem(problem.code, f"input {number}: {problem.message}", problem.hint) from problem
        return rows

    def read(self, given: Input) -> Any:
        """What `predict_batch` needs of an input. Raises ``bad_data`` for an input of another kind."""
        raise NotImplementedError

    def predict_batch(self, rows: Sequence[Any]) -> list[Prediction]:
        """Predictions of some inputs."""
        raise NotImplementedError

    def generate(
        self, prompts: Sequence[str | Sequence[Mapping[str, Any]]], *, max_tokens: int = 128, temperature: float = 0.0,
        top_p: float = 1.0, seed: int | None = None, batch_size: int = 8,
    ) -> Iterator[Answer]:  # fmt: skip
        """Refuse: most of these models write no text."""
        raise TrainingProblem("bad_data", "this model writes no text", "Use predict, with rows instead of prompts.")

    def moved(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs on the model's device."""
        device = next(self.network.parameters()).device
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def turns_of(given: Any, name: str = "messages") -> list[dict[str, Any]]:
    """The messages of a conversation, which is called ``name``. Raises ``bad_data`` for anything else."""
    turns = list(given) if isinstance(given, tuple) else given
    if fault := fault_of_turns(name, turns):
        raise TrainingProblem("bad_data", fault)
    return turns


def text_of(given: Any, key: str = "text", rows: str = '"text"') -> str:
    """The text of an input: a string, a row, or a conversation with one turn.

    ``rows`` names the keys of all rows that the model takes, for the error.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, dict) and isinstance(given.get(key), str):
        return str(given[key])
    if isinstance(given, list | tuple) and len(turns := turns_of(given)) == 1:
        return str(turns[0].get("content") or "")
    shown = f"{len(given)} turns" if isinstance(given, list | tuple) else "a value of another type"
    if isinstance(given, dict):
        shown = f"a row with {', '.join(ascii(name)[:50] for name in list(given)[:5]) or 'no keys'}"
    takes = f"it takes a text, a row with {rows}, or a conversation with one turn"
    raise TrainingProblem("bad_data", f"{takes}, not {shown}")
