"""Policy optimization: the model samples completions of a prompt and learns from their rewards.

GRPO (arxiv.org/abs/2402.03300) compares the completions of a prompt with each other, and penalizes the divergence from
the reference model in the loss. RLOO (arxiv.org/abs/2402.14740) compares each with the mean of the others, and
subtracts the divergence from the reward; it treats a completion as one action.

The reference is the initial model: the same network with the adapter disabled, or a frozen copy if all weights are
trained. A ``beta`` of 0 needs none. Samples, rewards and reference are computed once per batch of completions, without
dropout, before the forward passes that are trained.
"""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.adapters import is_whole_model
from cloudtune_trainer.advantages import group_advantages, leave_one_out_advantages
from cloudtune_trainer.completions import CompletionBatch, Completions, batch_of, by_token, with_completions
from cloudtune_trainer.generation_settings import answer_ends, padding_of
from cloudtune_trainer.loss import log_probabilities
from cloudtune_trainer.models import load_model
from cloudtune_trainer.reward_function import RewardCall, RewardInputs
from cloudtune_trainer.rollouts import Prompts, Sampler, Settings, encode_prompts, evaluating
from cloudtune_trainer.sequences import next_token_logits
from cloudtune_trainer.tasks.task import BestMetric, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec


class PolicyOptimization:
    """See the module. It is an `OnlineTask`."""

    best_metric = BestMetric("reward", higher_is_better=True)
    metric_sums = 7
    """Completions, their tokens, rewards, squared rewards, ended completions, divergence, clipped ratios."""
    peft_task_type = "CAUSAL_LM"
    labels: tuple[str, ...] = ()
    random_weights: tuple[str, ...] = ()
    can_pack = False
    packed = False
    needs_reference = False
    head: torch.nn.Module | None = None

    def __init__(self, spec: RunSpec) -> None:
        terms = spec.policy
        assert terms is not None  # `read_spec` checks it
        self.spec = spec
        self._terms = terms
        hyper = spec.hyperparameters
        self.at_once = max(1, hyper.batch_size // hyper.gradient_accumulation_steps) * terms.num_generations
        self._by_sequence = spec.method == "rloo"
        self.steps_per_batch = terms.steps_per_batch
        self._needs_old = self.steps_per_batch > 1 or (self._by_sequence and terms.beta > 0)
        self._reference: Any = None
        self._current: tuple[int, Completions] | None = None

    @property
    def _token_budget(self) -> int:
        """Tokens that are computed at once without gradients."""
        return self.spec.hyperparameters.max_length * self.at_once

    # -- before the first step

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """See `Task.load_model`."""
        self._reward = RewardCall(self._terms.reward, self.spec.device, max_length=self.spec.hyperparameters.max_length)
        network = load_model(base, dtype=dtype, weights=weights, dropout=dropout)
        if self._terms.beta and is_whole_model(self.spec.adapter.type):
            start = copy.deepcopy(network) if weights is None else load_model(base, dtype=dtype)
            self._reference = start.requires_grad_(False).eval()
        self._tokenizer = tokenizer
        ends = answer_ends(network, tokenizer)
        self._sampler = Sampler(ends, padding_of(tokenizer, ends) or 0)
        return network

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Prompts:
        """See `Task.encode`."""
        return encode_prompts(records, tokenizer, max_length=self.spec.hyperparameters.max_length)

    # -- completions

    def make_samples(
        self, model: Any, samples: Prompts, chosen: Sequence[int], *, step: int | None, devices: Devices,
        check: Callable[[], None],
    ) -> Completions:  # fmt: skip
        """See `OnlineTask.make_samples`: completions of those prompts with their advantages."""
        number = None if step is None else step // self.steps_per_batch
        if number is not None and self._current is not None and self._current[0] == number:
            return self._current[1]
        terms, hyper = self._terms, self.spec.hyperparameters
        settings = Settings(
            count=terms.num_generations, temperature=terms.temperature, max_new_tokens=terms.max_new_tokens,
            max_length=hyper.max_length, token_budget=self._token_budget,
            seed=(self.spec.seed, 1, 0) if number is None else (self.spec.seed, 0, number),
        )  # fmt: skip
        with evaluating(model):
            tokens = self._sampler.sample(model, samples, chosen, settings, devices, check)
            made = with_completions(samples, chosen, tokens, self._sampler.ends)
            with torch.random.fork_rng():  # a reward that uses random numbers does not change dropout
                made = replace(made, rewards=self._rewards(samples, chosen, tokens, devices, check))
            made = self._with_advantages(self._measured(model, made, devices))
        if number is not None:
            self._current = (number, made)
        return made

    def _rewards(
        self, prompts: Prompts, chosen: Sequence[int], tokens: Sequence[Sequence[int]], devices: Devices,
        check: Callable[[], None],
    ) -> NDArray[np.float32]:  # fmt: skip
        """The reward of each completion, from one call for as many as a training step has."""
        each, size = self._terms.num_generations, self.spec.hyperparameters.batch_size * self._terms.num_generations
        found = np.zeros(len(tokens), dtype=np.float64)
        for first in range(0, len(tokens), size):
            check()
            mine = devices.share(range(first, min(first + size, len(tokens))))
            owners = [chosen[place // each] for place in mine]
            found[list(mine)] = self._reward(RewardInputs(
                rows=[int(prompts.numbers[i]) for i in owners],
                prompts=[prompts.records[i]["messages"] for i in owners],
                completions=[self._tokenizer.decode(self._words(tokens[place]), skip_special_tokens=True)
                             for place in mine],
                fields=[prompts.records[i]["fields"] for i in owners],
                tools=[prompts.records[i].get("tools") for i in owners],
            ))  # fmt: skip
        return devices.joined(found).astype(np.float32)

    def _words(self, tokens: Sequence[int]) -> Sequence[int]:
        return tokens[:-1] if tokens[-1] in self._sampler.ends else tokens

    def _measured(self, model: Any, made: Completions, devices: Devices) -> Completions:
        """With the log-probabilities that advantages and loss need, by this model and by the reference."""
        passes: dict[str, Any] = {}
        if self._needs_old:
            passes["old"] = (model, nullcontext())
        if self._terms.beta:
            if self._reference is not None:
                self._reference.to(devices.device)
            adapted = self._reference is None
            passes["reference"] = (self._reference or model, model.disable_adapter() if adapted else nullcontext())
        for name, (network, context) in passes.items():
            figure = functools.partial(self.likelihoods, network)
            with context:
                made = replace(made, **{name: by_token(made, devices, figure, self._token_budget)[0]})
        return made

    def _with_advantages(self, made: Completions) -> Completions:
        """One advantage for all tokens of a completion."""
        scores, terms = made.rewards.astype(np.float64), self._terms
        if self._by_sequence:
            if made.old is not None and made.reference is not None:
                divergence = np.add.reduceat(made.old.astype(np.float64) - made.reference, made.bounds[:-1])
                scores = scores - terms.beta * divergence
            found = leave_one_out_advantages(scores.reshape(-1, terms.num_generations))
        else:
            found = group_advantages(scores.reshape(-1, terms.num_generations), scaled=terms.scale_rewards)
        return replace(made, advantages=np.repeat(found.reshape(-1), made.tokens).astype(np.float32))

    # -- the loss

    def collate(self, samples: Completions, chosen: Sequence[int]) -> CompletionBatch:
        """See `Task.collate`."""
        batch = batch_of(samples, chosen)
        whole = self._by_sequence or self._terms.normalization == "sequences"
        return replace(batch, count=len(batch.lengths)) if whole else batch

    def likelihoods(self, model: Any, batch: CompletionBatch) -> Tensor:
        """Log-probability of each trained token at the temperature of sampling."""
        logits = next_token_logits(model, batch)
        if self._terms.temperature != 1.0:
            logits = logits / self._terms.temperature
        return log_probabilities(logits, batch.labels)[0]

    def forward(self, model: Any, batch: CompletionBatch) -> Sums:
        """See `Task.forward`."""
        found = self.likelihoods(model, batch)
        losses, clipped = (self._of_sequences if self._by_sequence else self._of_tokens)(found, batch)
        return self._summed(losses, found, clipped, batch)

    def _summed(self, losses: Tensor, found: Tensor, clipped: Tensor, batch: CompletionBatch, *more: Tensor) -> Sums:
        with torch.no_grad():
            divergence = torch.zeros_like(found) if batch.reference is None else _divergence(found, batch.reference)
            figures = (
                len(batch.lengths), sum(batch.lengths), batch.rewards.sum(), batch.rewards.square().sum(),
                batch.ended.sum(), divergence.sum(), clipped, *more,
            )  # fmt: skip
            sums = torch.stack([torch.as_tensor(figure, device=found.device).float() for figure in figures])
        return Sums(losses.sum(), sums, batch.count)

    def _of_tokens(self, found: Tensor, batch: CompletionBatch) -> tuple[Tensor, Tensor]:
        """The loss of each token, by equation 3 of GRPO's paper, and how many ratios are clipped."""
        losses, clipped = self._surrogate(found, self._old(found, batch), batch.advantages)
        if batch.reference is not None:
            losses = losses + self._terms.beta * _divergence(found, batch.reference)
        if self._terms.normalization == "sequences":
            lengths = torch.tensor(batch.lengths, device=found.device)
            losses = losses / lengths.repeat_interleave(lengths)
        return losses, clipped

    def _of_sequences(self, found: Tensor, batch: CompletionBatch) -> tuple[Tensor, Tensor]:
        """The loss of each completion, as one action."""
        lengths = list(batch.lengths)

        def totals(values: Tensor) -> Tensor:
            return torch.stack([part.sum() for part in torch.split(values, lengths)])

        firsts = torch.tensor([0, *lengths[:-1]], device=found.device).cumsum(0)
        return self._surrogate(totals(found), totals(self._old(found, batch)), batch.advantages[firsts])

    def _old(self, found: Tensor, batch: CompletionBatch) -> Tensor:
        """What the ratio compares with. In a batch's first step it is 1, also with dropout."""
        return found.detach() if self.steps_per_batch == 1 or batch.old is None else batch.old

    def _surrogate(self, found: Tensor, old: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """The clipped loss of each action, and how many are clipped."""
        ratio, width = torch.exp(found - old), self._terms.clip_range
        plain = ratio * advantages
        clipped = ratio.clamp(1 - width, 1 + width) * advantages
        return -torch.minimum(plain, clipped), (clipped < plain).sum()

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`. ``kl`` is the mean per token of an estimate of the divergence from the reference."""
        completions, tokens, reward, squares, ended, divergence, clipped = metric_sums[:7]
        completions, tokens = max(1.0, completions), max(1.0, tokens)
        mean = reward / completions
        found = {
            "loss": loss / max(1, count), "reward": mean,
            "reward_std": float(np.sqrt(max(0.0, squares / completions - mean**2))),
            "completion_length": tokens / completions, "truncated": 1 - ended / completions,
            "clip_fraction": clipped / (completions if self._by_sequence else tokens),
        }  # fmt: skip
        return found | ({"kl": divergence / tokens} if self._terms.beta else {})

    # -- checkpoints

    def state(self) -> dict[str, Tensor]:
        """See `OnlineTask.state`: the completions, if further steps may use them."""
        if self.steps_per_batch == 1 or self._current is None:
            return {}
        number, made = self._current
        return {"number": torch.tensor(number)} | made.tensors()

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `OnlineTask.restore`."""
        if state:
            number = int(state["number"])
            self._current = (number, Completions.from_tensors({k: v for k, v in state.items() if k != "number"}))


def _divergence(found: Tensor, reference: Tensor) -> Tensor:
    """An estimate of the divergence from the reference at each token, never negative: equation 4 of GRPO's paper."""
    gap = reference - found
    return torch.expm1(gap) - gap
