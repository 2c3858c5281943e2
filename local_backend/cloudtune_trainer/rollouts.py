"""Sampling completions from the model in training, as token ids.

Each completion has random numbers of its own, determined by the seed, the step, the row and the completion's number.
The samples are therefore the same after a resume, in any batch, and with any number of processes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.batches import chunks_of
from cloudtune_trainer.batching import answers_in_batches
from cloudtune_trainer.generate import answer_tokens
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rendering import Renderer
from cloudtune_trainer.samples import Cuts, Samples, nothing_left, starts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.records import Record


@dataclass(frozen=True)
class Prompts(Samples):
    """The prompts of rows, without any token to train on."""

    numbers: NDArray[np.int64]
    """The row of each prompt, counted from 1."""
    records: tuple[Record, ...]
    """The rows. Each has the ``fields`` of all rows, with None for those that it does not have."""


@dataclass(frozen=True)
class Settings:
    """How completions are sampled."""

    count: int
    """Completions of each prompt."""
    temperature: float
    max_new_tokens: int
    max_length: int
    """Tokens of a prompt and its completion."""
    token_budget: int
    """Tokens that are generated at once, prompts and padding included."""
    seed: tuple[int, ...]


class Sampler:
    """Samples completions, and knows whether the network can do so in batches."""

    def __init__(self, ends: Sequence[int], padding: int) -> None:
        self.ends = tuple(ends)
        self.padding = padding
        self._can_batch: bool | None = None

    def sample(
        self, network: Any, prompts: Prompts, chosen: Sequence[int], settings: Settings, devices: Devices,
        check: Callable[[], None],
    ) -> list[list[int]]:  # fmt: skip
        """``settings.count`` completions of each chosen prompt, prompt by prompt, with their end tokens.

        All processes share the work and get all completions. The network must be in evaluation mode.
        """
        if self._can_batch is None:
            self._can_batch = answers_in_batches(network, self.padding)
        total = len(chosen) * settings.count
        width = settings.max_new_tokens
        tokens, lengths = np.zeros((total, width), dtype=np.int64), np.zeros(total, dtype=np.int64)
        batches = self._batches(prompts, chosen, settings)
        common = len(batches) // devices.world  # all processes have at least this many, and must check together
        for number, (room, places) in enumerate(devices.share(batches)):
            if number < common:
                check()
            owners = [chosen[place // settings.count] for place in places]
            draws = [
                np.random.default_rng((*settings.seed, int(prompts.numbers[owner]), place % settings.count)).random(
                    width
                )
                for owner, place in zip(owners, places, strict=True)
            ]
            with devices.autocast():
                found = answer_tokens(
                    network, [prompts.ids[prompts.starts[i] : prompts.starts[i + 1]].tolist() for i in owners],
                    ends=self.ends, padding=self.padding, max_tokens=room, sampling={},
                    logits_processor=[_Draw(np.stack(draws), settings.temperature)],
                )  # fmt: skip
            for place, row in zip(places, found, strict=True):
                tokens[place, : len(row)], lengths[place] = row, len(row)
        tokens, lengths = devices.joined(tokens), devices.joined(lengths)
        return [tokens[place, : lengths[place]].tolist() for place in range(total)]

    def _batches(
        self, prompts: Prompts, chosen: Sequence[int], settings: Settings
    ) -> list[tuple[int, list[int]]]:  # fmt: skip
        """Places of completions that are generated together, each with the number of new tokens.

        Prompts that leave less room than ``max_new_tokens`` are on their own, so that none exceeds ``max_length``.
        """
        lengths = np.repeat(prompts.lengths[np.asarray(chosen, dtype=np.int64)], settings.count)
        rooms = np.minimum(settings.max_new_tokens, settings.max_length - lengths)
        budget = settings.token_budget if self._can_batch else 0
        return [
            (int(room), [int(places[i]) for i in chunk])
            for room in np.unique(rooms)
            for places in [np.flatnonzero(rooms == room)]
            for chunk in chunks_of((lengths[places] + room).tolist(), budget)
        ]


class _Draw:
    """A logits processor that leaves one token of each row: the one at the row's next random number."""

    def __init__(self, draws: NDArray[np.float64], temperature: float) -> None:
        self._draws = draws
        self._temperature = temperature
        self._place = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        precise = torch.float32 if scores.device.type == "mps" else torch.float64
        total = torch.softmax(scores.float() / self._temperature, -1).to(precise).cumsum(-1)
        draw = torch.from_numpy(self._draws[:, self._place, None].copy()).to(total)
        self._place += 1
        token = torch.searchsorted(total, draw * total[:, -1:], right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def encode_prompts(records: Iterable[Record], tokenizer: Any, *, max_length: int) -> Prompts:
    """The tokens of each row's prompt. A prompt that leaves no room for a completion is dropped."""
    renderer, cuts = Renderer(tokenizer, loss_on="assistant"), Cuts()
    rows, ids = [], []
    kept: list[Record] = []
    columns: dict[str, None] = {}  # an ordered set
    for row, record in enumerate(records, 1):
        if fault := _fault(record):
            raise TrainingProblem("bad_data", f"row {row}: {fault}")
        try:
            text = renderer.prompt(record["messages"], record.get("tools"))
        except TrainingProblem as problem:
            raise TrainingProblem(problem.code, f"row {row}: {problem.message}", problem.hint) from problem
        columns |= dict.fromkeys(record.get("fields", {}))
        found = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if not 0 < len(found) < max_length:
            cuts.dropped.append(row)
            continue
        ids.append(np.asarray(found, dtype=np.int32))
        rows.append(row)
        kept.append(record)
    if not kept:
        raise nothing_left(cuts, max_length)
    flat = np.concatenate(ids)
    learn = np.zeros(len(flat), dtype=np.bool_)
    # a reward gets the same columns in every call
    completed = tuple({**record, "fields": columns | record.get("fields", {})} for record in kept)
    return Prompts(flat, learn, starts_of(ids), cuts, np.asarray(rows, dtype=np.int64), completed)


def _fault(record: Record) -> str | None:
    messages, fields = record.get("messages"), record.get("fields", {})
    if not messages or "chosen" in record:
        return 'a prompt requires "messages", and may have "fields" for the reward'
    if messages[-1]["role"] == "assistant":
        return "the prompt ends with an assistant's message; remove it, or give it as a field for the reward"
    if not isinstance(fields, dict):
        return '"fields" must be an object'
    taken = [name for name in ("prompts", "completions") if name in fields]
    return f"a field cannot be named {taken[0]!r}: a reward has an argument of that name" if taken else None


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """The models in evaluation mode, without gradients."""
    before = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, training in zip(models, before, strict=True):
            model.train(training)
