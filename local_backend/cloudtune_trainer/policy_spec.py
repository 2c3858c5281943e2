"""The part ``policy`` of ``spec.json``: settings of policy optimization. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloudtune_trainer.spec_values import SMALLEST


@dataclass(frozen=True, kw_only=True)
class Reward:
    """What scores a completion. Exactly one of function, url and model is set."""

    function: str | None = None
    """A Python function: ``FILE.py:name``, with an absolute path, or ``module:name``."""
    fingerprint: str | None = None
    """The hash of the function's file, or the fingerprint of the reward model's folder, when the job was planned."""
    url: str | None = None
    """An HTTP endpoint."""
    model: str | None = None
    """The folder of a reward model."""
    timeout: float = 300.0
    """Seconds that one call may take."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Additional settings of policy optimization."""

    reward: Reward
    beta: float = 0.04
    """Strength of the KL penalty. Without it (0) there is no reference model."""
    num_generations: int = 8
    """Completions of each prompt."""
    temperature: float = 1.0
    max_new_tokens: int = 256
    steps_per_batch: int = 1
    """Optimizer steps on the same completions."""
    clip_range: float = 0.2
    """How far the ratio of probabilities counts: from 1 - clip_range to 1 + clip_range."""
    scale_rewards: bool = True
    """Divide a group's advantages by their standard deviation."""
    normalization: Literal["tokens", "sequences"] = "tokens"
    """The loss is a mean over the step's tokens, or over completions of each one's mean over its tokens."""
    discount: float = 1.0
    """PPO's gamma."""
    decay: float = 0.95
    """PPO's lambda, of generalized advantage estimation."""
    value_coefficient: float = 0.1
    """Weight of the value loss."""


def policy_faults(terms: Policy, *, one_each: bool) -> list[str]:
    """Checks beyond the types. ``one_each``: a prompt may have a single completion."""
    numbers: dict[str, tuple[float, float]] = {
        "temperature": (terms.temperature, SMALLEST), "max_new_tokens": (terms.max_new_tokens, 1),
        "steps_per_batch": (terms.steps_per_batch, 1), "num_generations": (terms.num_generations, 1 if one_each else 2),
        "beta": (terms.beta, 0.0), "clip_range": (terms.clip_range, 1e-6),
        "reward.timeout": (terms.reward.timeout, 1e-3), "discount": (terms.discount, 0.0), "decay": (terms.decay, 0.0),
        "value_coefficient": (terms.value_coefficient, 0.0),
    }  # fmt: skip
    found = [
        f"policy.{name} must be at least {least:g} and finite, not {number}"
        for name, (number, least) in numbers.items()
        if not least <= number < float("inf")
    ]
    if [terms.reward.function, terms.reward.url, terms.reward.model].count(None) != 2:
        found.append("policy.reward: set exactly one of function, url and model")
    return found
