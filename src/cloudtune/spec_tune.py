"""What `cloudtune tune` searches: parameters of a `JobSpec`, the metric that chooses, and the budget."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from cloudtune.spec_types import NaturalInt, Part, PositiveFloat, PositiveInt, Seconds, Seed, not_bool

_LOWER_IS_BETTER = re.compile(r"loss$|error$|(?<![a-z])(loss|perplexity|error|wer|cer|mae|mse|rmse|kl)(?![a-z])")
_Number = Annotated[int | float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]


class Range(Part):
    """Values from ``low`` to ``high``, both included. Whole numbers if ``low`` and ``high`` are."""

    low: _Number
    high: _Number
    log: bool = False
    """Choose on a logarithmic scale, as for learning rates."""

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range must start above 0")
        return self


def _choices(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list | tuple) else value


class Choices(Part):
    """One of these values. ``[4, 8]`` is short for ``{choices: [4, 8]}``."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if any(one in self.choices[:number] for number, one in enumerate(self.choices)):
            raise ValueError("a choice occurs twice")
        return self


Parameter = Annotated[
    Range | Choices, BeforeValidator(_choices, json_schema_input_type=Range | Choices | list[Any])
]  # fmt: skip


class Tune(Part):
    """A search for better parameters. Each trial is a job; the first one has the spec's own parameters."""

    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    """What to vary, by path: ``hyperparameters.learning_rate: {low: 1e-5, high: 1e-3, log: true}``."""
    metric: Annotated[str, Field(min_length=1)] = "loss"
    """The metric on the validation rows that chooses, with the name that `cloudtune metrics` shows."""
    direction: Literal["minimize", "maximize"] | None = None
    """Default: ``minimize`` for a loss, perplexity, error or ``kl``, otherwise ``maximize``."""
    trials: PositiveInt = 20
    """Number of trials."""
    parallel: PositiveInt = 1
    """Most trials that run at a time. With 1, the search depends on ``seed`` and the results only."""
    max_time: Seconds | None = None
    """Total run time of all jobs, e.g. ``6h``. Jobs that are running then are cancelled."""
    max_cost_usd: PositiveFloat | None = None
    """Maximum cost of all jobs in USD. A job that may exceed it is not started."""
    seeds: Annotated[NaturalInt, Field(le=100)] = 3
    """How often the best and the original parameters are trained again to compare them on the test rows."""
    seed: Seed = 0
    """Seed of the search."""
    prune: bool = True
    """Cancel a trial whose metric is worse than the median of the earlier trials at the same step."""

    @property
    def minimizes(self) -> bool:
        """Whether a lower value is better."""
        if self.direction is not None:
            return self.direction == "minimize"
        return _LOWER_IS_BETTER.search(self.metric.lower()) is not None
