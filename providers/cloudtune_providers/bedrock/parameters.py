"""Converts a spec's hyperparameters to Bedrock's names."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cloudtune_providers.bedrock.responses import NAME

if TYPE_CHECKING:
    from cloudtune.spec import JobSpec

_RFT = {
    "max_prompt_length": "maxPromptLength", "samples_per_prompt": "trainingSamplePerPrompt",
    "inference_max_tokens": "inferenceMaxTokens", "reasoning_effort": "reasoningEffort",
    "eval_interval": "evalInterval",
}  # fmt: skip


def hyperparameters(spec: JobSpec) -> dict[str, Any]:
    """The spec's hyperparameters by Bedrock's names."""
    given, portable = spec.overrides.get(NAME, {}), spec.hyperparameters
    found = {
        "epochCount": _whole(portable.epochs),
        "batchSize": given.get("batch_size"),
        "learningRate": portable.learning_rate,
        "learningRateWarmupSteps": portable.warmup_steps,
    }
    chosen = {name: value for name, value in found.items() if value is not None}
    return chosen | dict(given.get("hyperparameters") or {})


def rft_parameters(spec: JobSpec) -> dict[str, Any]:
    """The hyperparameters of reinforcement, which are numbers instead of strings."""
    given = spec.overrides.get(NAME, {})
    return hyperparameters(spec) | {name: given[field] for field, name in _RFT.items() if given.get(field) is not None}


def as_text(value: Any) -> str:
    """A value in Bedrock's format: plain digits, since support for exponents is not documented."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


def as_number(value: Any) -> Any:
    """Parse a number that is written as text."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and "." not in value and "e" not in value.lower() else number


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value
