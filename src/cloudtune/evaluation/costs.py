"""What the answers of an evaluation cost: an estimate before any question, and the counted tokens afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from cloudtune.errors import PolicyRefused
from cloudtune.optional import PricedAnswers
from cloudtune.pricing import usd_of
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.cost import AnswerPrice
    from cloudtune.evaluation.models import EvaluatedModel

_BYTES_PER_TOKEN = 4
_MORE_PER_PROMPT = 8
"""Tokens of the chat format around a prompt. The most is four times as many, for several turns."""


class Questions(NamedTuple):
    """Questions to one model that have no stored answer."""

    name: str
    model: EvaluatedModel
    base: bool
    asked: int
    prompt_bytes: int
    expected_bytes: int
    max_tokens: int
    more_prompt_bytes: int = 0
    """By how much prompts that are not known yet may be longer."""


class EvaluationCost(Value, frozen=True, kw_only=True):
    """The estimated cost of the answers that are asked for. Stored answers cost nothing again."""

    answers: int
    """Answers of models that a service bills."""
    usd: float
    at_most_usd: float
    """If each byte is a token and each answer has the most tokens."""
    unknown: tuple[str, ...] = ()
    """The models whose price is not known. They are not in the figures."""
    basis: tuple[str, ...] = ()
    """The prices, with their sources."""

    def text(self) -> str:
        """The estimate in words."""
        parts = []
        if self.basis:
            parts.append(f"about {self.usd:.4f} USD, at most {self.at_most_usd:.4f} USD ({'; '.join(self.basis)})")
        if self.unknown:
            parts.append(f"unknown: the price of {', '.join(self.unknown)}")
        return f"cost of {self.answers:,} answers: {'; '.join(parts) or 'none'}"


def price_of(model: EvaluatedModel, *, base: bool) -> AnswerPrice | None:
    """The price of a model's answers, if its back end knows it."""
    backend = model.backend
    return backend.answer_price(model.tuned, base=base) if isinstance(backend, PricedAnswers) else None


def estimate(asked: Sequence[Questions]) -> EvaluationCost:
    """Add up the cost of the questions to models that a service bills."""
    billed = [one for one in asked if one.asked and one.model.backend.capabilities.remote]
    likely = most = 0.0
    unknown: list[str] = []
    basis: list[str] = []
    for one in billed:
        price = price_of(one.model, base=one.base)
        if price is None:
            unknown.append(one.name)
            continue
        basis.append(f"{one.name}: {price.text()}")
        prompt = one.prompt_bytes / _BYTES_PER_TOKEN + _MORE_PER_PROMPT * one.asked
        answer = min(one.expected_bytes / _BYTES_PER_TOKEN + one.asked, one.max_tokens * one.asked)
        likely += price.usd(prompt, answer)
        longest = one.prompt_bytes + one.more_prompt_bytes + 4 * _MORE_PER_PROMPT * one.asked
        most += price.usd(longest, one.max_tokens * one.asked)
    return EvaluationCost(
        answers=sum(one.asked for one in billed), usd=round(likely, 4),
        at_most_usd=math.ceil(round(most * 1e4, 6)) / 1e4,  # never below the cost
        unknown=tuple(unknown), basis=tuple(basis),
    )  # fmt: skip


def check(cost: EvaluationCost, cap: float | None) -> None:
    """Raise PolicyRefused if the answers may cost more than ``cap``, or if that is not known."""
    if cap is None:
        return
    if not cost.at_most_usd <= cap:  # also if the limit is not a number
        raise PolicyRefused(
            f"the answers may cost up to {cost.at_most_usd:.4f} USD, more than the limit of {cap:g} USD",
            hint="raise the limit, or use fewer rows, models or tokens",
        )
    if cost.unknown:
        raise PolicyRefused(
            f"the limit of {cap:g} USD cannot be kept, because the price of {', '.join(cost.unknown)} is not known",
            hint="leave out the limit, or these models",
        )


def actual(price: AnswerPrice | None, prompt_tokens: int, completion_tokens: int) -> float | None:
    """What so many tokens cost. None without a price."""
    return None if price is None else usd_of(1, 1e6 * price.usd(prompt_tokens, completion_tokens))
