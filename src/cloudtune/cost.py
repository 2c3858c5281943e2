"""The cost of a job: the estimate before it, the vendor's record after it. `cloudtune.pricing` computes both.

An amount that is not known is None and named in ``unknown``. It is never counted as zero.
"""

from __future__ import annotations

from typing import Literal

from cloudtune.state import Value


class CostEstimate(Value, frozen=True, kw_only=True):
    """The expected cost of a job or a deployment, and the date of the prices."""

    usd: float | None
    """The most likely cost. None if only bounds or a price are known."""
    basis: str
    prices_as_of: str | None = None
    at_least_usd: float | None = None
    at_most_usd: float | None = None
    unknown: tuple[str, ...] = ()
    """What is billed, but is not in the figures because its price or amount is unknown."""
    later: tuple[str, ...] = ()
    """What is billed after the job, with its price, such as storage and hosting. Not in the figures."""
    usd_per_million_tokens: float | None = None
    """The price, if the job is billed by its tokens."""
    usd_per_hour: float | None = None
    """The price, if the job is billed by its run time."""
    billed_after_s: float = 0.0
    """How long machines are kept after the job at most, at ``usd_per_hour``. Included in ``at_most_usd``."""
    time_limit: Literal["none", "stops", "keeps_model"] = "none"
    """Whether the back end stops a job at ``PlanRequest.run_seconds``, and whether a usable model is left then."""


class AnswerPrice(Value, frozen=True, kw_only=True):
    """The prices of a model's answers, in USD per million tokens."""

    prompt: float
    answer: float
    source: str
    """With its date."""

    def usd(self, prompt_tokens: float, answer_tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1e6

    def text(self) -> str:
        """The prices in words."""
        return f"{self.prompt:g} and {self.answer:g} USD per 1M tokens of prompts and answers, {self.source}"


class Measured(Value, frozen=True, kw_only=True):
    """The run time of earlier jobs with the same settings, in seconds per million bytes of training rows and epoch."""

    least_s: float
    median_s: float
    most_s: float
    jobs: int


class Usage(Value, frozen=True, kw_only=True):
    """What a job that has ended is billed for, as the vendor recorded it."""

    tokens: int | None = None
    seconds: float | None = None
    """Seconds of one machine: the price of an hour already includes their number."""
    seconds_after: float = 0.0
    """Seconds for which machines were kept after the job, billed like ``seconds``."""
    note: str = ""
    """Why both are None, or what else is known about the bill."""


class ActualCost(Value, frozen=True, kw_only=True):
    """The cost of a job that has ended: its usage at the prices of its plan."""

    usd: float | None
    usage: Usage
    basis: str
    state: str
    """The state in which the job ended."""
    ended_at: str
    """ISO 8601."""
    epochs: float | None = None
    """Epochs that it trained, if known."""
