"""Proximal policy optimization (arxiv.org/abs/1707.06347): each token is an action, and a value head is the baseline.

The reward of a completion comes with its last token. Every token has a penalty for its divergence from the reference
model. Advantages are estimated with generalized advantage estimation and standardized over the step's tokens. The value
head is a linear layer on the hidden states from which the model computes its logits. It starts at zero, is trained with
the model, and is not part of the result.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cloudtune_trainer.advantages import generalized_advantages
from cloudtune_trainer.completions import by_token
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.rope import switch_length
from cloudtune_trainer.tasks.policy_optimization import PolicyOptimization

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune_trainer.completions import CompletionBatch, Completions
    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.tasks.task import Sums


class ProximalPolicyOptimization(PolicyOptimization):
    """See the module. One more metric sum: the value loss."""

    metric_sums = 8

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self._needs_old = False  # measured together with the values

    def load_model(self, *arguments: Any, **options: Any) -> Any:
        """See `Task.load_model`."""
        network = super().load_model(*arguments, **options)
        switch = switch_length(network.config)
        if switch is not None and switch < self.spec.hyperparameters.max_length:
            what = f"ppo supports sequences of at most {switch} tokens with this model's rotary embeddings"
            raise TrainingProblem("bad_spec", what, f"Set max_length to at most {switch}, or use grpo.")
        width = network.get_output_embeddings().weight.shape[-1]
        self.head = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        return network

    def _measured(self, model: Any, made: Completions, devices: Devices) -> Completions:
        made = super()._measured(model, made, devices)

        def both(batch: CompletionBatch) -> Tensor:
            return torch.stack(self._likelihoods_and_values(model, batch))

        old, values = by_token(made, devices, both, self._token_budget, count=2)
        return replace(made, old=old, values=values)

    def _with_advantages(self, made: Completions) -> Completions:
        assert made.old is not None
        assert made.values is not None
        rewards = np.zeros(len(made.old), dtype=np.float64)
        if made.reference is not None:
            rewards -= self._terms.beta * (made.old.astype(np.float64) - made.reference)
        rewards[made.bounds[1:] - 1] += made.rewards
        values = made.values.astype(np.float64)
        found = generalized_advantages(
            rewards, values, made.bounds, discount=self._terms.discount, decay=self._terms.decay
        )
        standard = (found - found.mean()) / (found.std() + 1e-8)
        return replace(made, advantages=standard.astype(np.float32), returns=(found + values).astype(np.float32))

    def _likelihoods_and_values(self, model: Any, batch: CompletionBatch) -> tuple[Tensor, Tensor]:
        """Of each trained token: its log-probability, and the value of the text before it."""
        assert isinstance(self.head, torch.nn.Linear)
        with _inputs_of(model.get_output_embeddings()) as seen:
            likelihoods = self.likelihoods(model, batch)
        width = batch.inputs["input_ids"].shape[1]
        hidden = seen[0][:, -width:].flatten(0, 1)[batch.kept].float()  # an adapter can put tokens before the text
        # not a matrix product, which autocast would compute in a lower precision
        return likelihoods, (hidden * self.head.weight).sum(-1) + self.head.bias

    def forward(self, model: Any, batch: CompletionBatch) -> Sums:
        """See `Task.forward`."""
        assert batch.values is not None
        assert batch.returns is not None
        found, values = self._likelihoods_and_values(model, batch)
        width = self._terms.clip_range
        losses, clipped = self._surrogate(found, self._old(found, batch), batch.advantages)
        near = batch.values + (values - batch.values).clamp(-width, width)
        of_value = 0.5 * torch.maximum((values - batch.returns) ** 2, (near - batch.returns) ** 2)
        losses = losses + self._terms.value_coefficient * of_value
        return self._summed(losses, found, clipped, batch, of_value.detach().sum())

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """See `Task.metrics`."""
        found = super().metrics(loss, metric_sums, count)
        return found | {"value_loss": metric_sums[7] / max(1.0, metric_sums[1])}

    def state(self) -> dict[str, Tensor]:
        """See `OnlineTask.state`."""
        assert self.head is not None
        return super().state() | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """See `OnlineTask.restore`."""
        assert self.head is not None
        self.head.load_state_dict({
            name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")
        })  # fmt: skip
        super().restore({name: value for name, value in state.items() if not name.startswith("head.")})


def policy_task(spec: RunSpec) -> PolicyOptimization:
    """The task of the spec's method."""
    return ProximalPolicyOptimization(spec) if spec.method == "ppo" else PolicyOptimization(spec)


@contextmanager
def _inputs_of(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """The inputs that the layer gets meanwhile."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
