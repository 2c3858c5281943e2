"""Sampled completions as training samples: token ids, and figures for each token of a completion."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.batches import chunks_of
from cloudtune_trainer.samples import Cuts, Samples, starts_of
from cloudtune_trainer.sequences import SequenceBatch, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.rollouts import Prompts

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Completions(Samples):
    """A sample is a prompt and its completion, of which only the completion is trained on.

    The figures are arrays over the tokens of all completions, ``bounds[i]:bounds[i + 1]`` for sample i.
    """

    bounds: NDArray[np.int64]
    ended: NDArray[np.bool_]
    """Whether the model ended the completion within ``max_new_tokens``."""
    rewards: Floats
    advantages: Floats
    old: Floats | None = None
    """Log-probabilities by the model that sampled them."""
    reference: Floats | None = None
    """Log-probabilities by the reference model."""
    values: Floats | None = None
    """The value of the text before each token, by the model that sampled it."""
    returns: Floats | None = None
    """What `values` should be."""

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of each completion."""
        return np.diff(self.bounds)

    def tensors(self) -> dict[str, Tensor]:
        """All arrays, for a checkpoint."""
        arrays = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: torch.from_numpy(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Completions:
        """The completions of `tensors`."""
        return cls(cuts=Cuts(), **{name: tensor.numpy() for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class CompletionBatch(SequenceBatch):
    """Completions of one forward pass. The figures have one entry for each of the ``labels``."""

    lengths: tuple[int, ...]
    """Trained tokens of each completion."""
    ended: Tensor
    rewards: Tensor
    advantages: Tensor
    old: Tensor | None
    reference: Tensor | None
    values: Tensor | None
    returns: Tensor | None


_FIGURES = ("advantages", "old", "reference", "values", "returns")


def with_completions(
    prompts: Prompts, chosen: Sequence[int], tokens: Sequence[Sequence[int]], ends: Sequence[int]
) -> Completions:
    """The chosen prompts with their completions, an equal number for each, prompt by prompt; without any figures."""
    each = len(tokens) // len(chosen)
    ids, learn = [], []
    for place, completion in enumerate(tokens):
        prompt = prompts.ids[slice(*prompts.starts[chosen[place // each] :][:2])]
        ids += [prompt, np.asarray(completion, dtype=np.int32)]
        learn += [np.zeros(len(prompt), dtype=np.bool_), np.ones(len(completion), dtype=np.bool_)]
    empty = np.zeros(0, dtype=np.float32)
    return Completions(
        np.concatenate(ids), np.concatenate(learn), starts_of(ids)[::2].copy(), Cuts(), starts_of(tokens),
        np.asarray([completion[-1] in ends for completion in tokens]), empty, empty,
    )  # fmt: skip


def by_token(
    made: Completions, devices: Devices, figures: Callable[[CompletionBatch], Tensor], token_budget: int, count: int = 1
) -> Floats:
    """Figures of each token of the completions, [count, tokens], computed in batches by all processes together."""
    found = np.zeros((count, int(made.bounds[-1])), dtype=np.float32)
    bare = replace(made, advantages=found[0])
    for places in devices.share(chunks_of(made.lengths.tolist(), token_budget)):
        with devices.autocast():
            values = figures(batch_of(bare, places).to(devices.device)).float().cpu().numpy()
        bounds = np.cumsum(made.tokens[np.asarray(places)])[:-1]
        for place, part in zip(places, np.split(values.reshape(count, -1), bounds, 1), strict=True):
            found[:, made.bounds[place] : made.bounds[place + 1]] = part
    return devices.joined(found)


def batch_of(made: Completions, chosen: Sequence[int]) -> CompletionBatch:
    """Those completions for one forward pass, one per padded row."""
    sequences = lay_out(made, [(int(made.starts[i]), int(made.starts[i + 1])) for i in chosen], packed=False)
    spans = [slice(int(made.bounds[i]), int(made.bounds[i + 1])) for i in chosen]

    def of_tokens(figure: Floats | None) -> Tensor | None:
        return None if figure is None else torch.from_numpy(np.concatenate([figure[span] for span in spans]))

    order = np.asarray(chosen)
    found: dict[str, Any] = {name: of_tokens(getattr(made, name)) for name in _FIGURES}
    return CompletionBatch(
        **vars(sequences), lengths=tuple(made.tokens[order].tolist()), ended=torch.from_numpy(made.ended[order]),
        rewards=torch.from_numpy(made.rewards[order]), **found,
    )  # fmt: skip
