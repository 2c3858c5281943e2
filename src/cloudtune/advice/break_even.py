"""From how many requests per month a tuned model costs less than its base model with a long prompt.

Each request costs its tokens at the prices of the model. The tuned model also costs its training, spread over some
months, and its hosting. The break-even is the fixed cost per month divided by the saving per request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from cloudtune.advice.prices import PRICES, Prices
from cloudtune.clock import SystemClock
from cloudtune.errors import InputError
from cloudtune.evaluation import statistics
from cloudtune.evaluation.metrics import METRICS
from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.evaluation.compare import Comparison
    from cloudtune.evaluation.result import Evaluation

MARGIN = 0.05
"""How much worse the tuned model may be, as a share of the metric's range."""
_BASES = ("few_shot", "base")
"""Roles of the model to compare with, the preferred one first."""
_PER_TOKEN = {"base_input", "base_output", "tuned_input", "tuned_output"}

Decision = Literal["above", "always", "never", "undecided"]


class Bounds(Value, frozen=True, kw_only=True):
    """A figure with its interval. ``value`` is None if only the bounds are known."""

    value: float | None
    low: float
    high: float


class BreakEven(Value, frozen=True, kw_only=True):
    """What an evaluation and the prices say about cost."""

    decision: Decision
    """``above``: the tuned model costs less above ``requests_per_month``. ``always``, ``never``: at any number.
    ``undecided``: it cannot be decided from this data, for the reasons in ``missing``."""
    summary: str
    requests_per_month: Bounds | None = None
    missing: tuple[str, ...] = ()
    """Why it cannot be decided, all reasons."""
    model: str
    against: str
    quality: str = ""
    """How the two models compare on the rows."""
    base_per_request_usd: float | None = None
    """Mean cost of a request to the base model."""
    tuned_per_request_usd: float | None = None
    saving_per_request_usd: Bounds | None = None
    """With the 95% interval over the rows."""
    fixed_per_month_usd: Bounds | None = None
    """Training spread over ``months``, and hosting."""
    months: float
    prices: Prices

    def monthly_usd(self, requests: float) -> tuple[float, float] | None:
        """The cost per month of the base model and of the tuned model. None if it is not known."""
        fixed, base, tuned = self.fixed_per_month_usd, self.base_per_request_usd, self.tuned_per_request_usd
        if fixed is None or base is None or tuned is None:
            return None
        start = fixed.value if fixed.value is not None else (fixed.low + fixed.high) / 2
        return requests * base, start + requests * tuned


class _Tokens(NamedTuple):
    """The tokens of each row's prompt and answer."""

    base: Sequence[Sequence[int]]
    tuned: Sequence[Sequence[int]]
    groups: statistics.Groups


def break_even(
    evaluation: Evaluation, prices: Prices, *, months: float | None = None, margin: float = MARGIN
) -> BreakEven:
    """Compute from how many requests per month the tuned model costs less than its base model with a long prompt.

    The base model after examples is compared if the evaluation has it (``few_shot``), otherwise the base model with the
    same prompts.

    Args:
        evaluation: The tuned model against its base model, with the tokens of each answer.
        prices: Prices that are None make the result ``undecided``. They never count as zero.
        months: How long the tuned model is used: training is spread over this time. Default: 12, or until it ends.
        margin: How much worse the tuned model may be, as a share of the metric's range.

    Raises:
        InputError: ``months`` or ``margin`` is not valid, or the tuned model has ended.
    """
    if months is None:
        months = prices.months_of_use(SystemClock().now().date())
    if not 0 < months < float("inf") or not 0 <= margin < float("inf"):
        raise InputError("months must be greater than 0 and margin at least 0")
    roles = {one.role: one.name for one in reversed(evaluation.models)}
    against = next((roles[role] for role in _BASES if role in roles), "")
    model = evaluation.models[0].name
    result = BreakEven(decision="undecided", summary="", model=model, against=against, months=months, prices=prices)
    if not against:
        why = "the evaluation does not compare the tuned model with its base model"
        return _undecided(result, [f"{why}; evaluate the job without --no-baselines"])
    quality, worse = _quality(evaluation, against, margin)
    result = msgspec.structs.replace(result, quality=quality)
    reasons = [worse] if worse else []
    tokens = _tokens(evaluation, model, against)
    if isinstance(tokens, str):
        reasons.append(tokens)
    result = msgspec.structs.replace(result, fixed_per_month_usd=_fixed(prices, months))
    unknown = prices.unknown()
    if not isinstance(tokens, str) and not set(unknown) & _PER_TOKEN:
        result = _with_costs(result, tokens, prices, evaluation.options.seed)
        if result.saving_per_request_usd is None:
            reasons.append("the evaluation has too few independent rows for an interval")
    saving = result.saving_per_request_usd
    if saving is not None and saving.low <= 0 <= saving.high:
        reasons.append("the interval of the saving per request includes zero: more rows may decide it")
    if saving is not None and saving.high < 0:  # whatever the rest costs
        unknown = []
    reasons += [f"the price {name} is unknown: {PRICES[name]}" for name in unknown]
    return _undecided(result, reasons) if reasons else _decided(result)


def _undecided(result: BreakEven, reasons: list[str]) -> BreakEven:
    return msgspec.structs.replace(result, summary="The break-even cannot be decided from this data.",
                                   missing=tuple(reasons))  # fmt: skip


def _decided(result: BreakEven) -> BreakEven:
    saving, fixed = result.saving_per_request_usd, result.fixed_per_month_usd
    if saving is not None and saving.high < 0:
        text = "The tuned model never costs less: each of its requests costs more."
        return msgspec.structs.replace(result, decision="never", summary=text)
    assert saving is not None
    assert saving.value is not None
    assert fixed is not None
    if fixed.high == 0:
        text = "The tuned model always costs less: each of its requests costs less, and nothing else is billed."
        return msgspec.structs.replace(result, decision="always", summary=text)
    value = None if fixed.value is None else fixed.value / saving.value
    found = Bounds(value=value, low=fixed.low / saving.high, high=fixed.high / saving.low)
    interval = f"{found.low:,.0f} to {found.high:,.0f}"
    limit = f"a number in {interval}" if value is None else f"{value:,.0f} requests per month (interval {interval})"
    text = f"The tuned model costs less above {limit}."
    return msgspec.structs.replace(result, decision="above", summary=text, requests_per_month=found)


def _quality(evaluation: Evaluation, against: str, margin: float) -> tuple[str, str]:
    """How the models compare in words, and why that is not good enough, if it is not."""
    found = next((one for one in evaluation.comparisons if one.against == against), None)
    if found is None:
        return "", f"the evaluation does not compare the quality of the tuned model with that of {against}"
    interval = "" if found.low is None else f" ({found.low:+.4g} to {found.high:+.4g})"
    quality = f"{found.metric}: {found.difference:+.4g}{interval} against {against}: {found.verdict}"
    worst = _worst(found)
    if found.verdict == "helped" or (worst is not None and worst <= margin):
        return quality, ""
    if found.verdict == "worse":
        return quality, f"the tuned model is worse than {against}, so their costs are not comparable"
    limit = "" if worst is None else f": it may be {100 * worst:.1f}% of the metric's range worse"
    return quality, f"these rows do not show that the tuned model is as good as {against}{limit}"


def _worst(found: Comparison) -> float | None:
    """How much worse the tuned model may be, as a share of the metric's range. None if that is not known."""
    metric = METRICS.get(found.metric)
    if metric is None or metric.span is None or found.low is None or found.high is None:
        return None
    worst = -found.low if metric.higher_is_better else found.high
    return max(worst, 0.0) / (metric.span - metric.lowest)


def _tokens(evaluation: Evaluation, model: str, against: str) -> _Tokens | str:
    rows = [row.get("tokens", {}) for row in evaluation.answers]
    if not rows or any(name not in tokens for tokens in rows for name in (model, against)):
        return "the evaluation does not have the tokens of each answer: the back end does not count them"
    groups = statistics.Groups([row["group"] for row in evaluation.answers])
    return _Tokens([one[against] for one in rows], [one[model] for one in rows], groups)


def _fixed(prices: Prices, months: float) -> Bounds | None:
    """The cost per month without requests. None if training or hosting is unknown."""
    low, high = prices.training_bounds
    hosting = prices.hosting_month
    if low is None or high is None or hosting is None:
        return None
    value = None if prices.training is None else prices.training / months + hosting
    return Bounds(value=value, low=low / months + hosting, high=high / months + hosting)


def _with_costs(result: BreakEven, tokens: _Tokens, prices: Prices, seed: int) -> BreakEven:
    """With the cost of a request. The prices per token are known."""
    import numpy as np

    base = np.array(tokens.base) @ np.array([prices.base_input, prices.base_output], dtype=float) / 1e6
    tuned = np.array(tokens.tuned) @ np.array([prices.tuned_input, prices.tuned_output], dtype=float) / 1e6
    result = msgspec.structs.replace(
        result, base_per_request_usd=float(base.mean()), tuned_per_request_usd=float(tuned.mean())
    )
    saving, groups = base - tuned, tokens.groups
    if groups.count < 2:
        return result

    def mean(weights: Any) -> Any:
        return weights @ saving / weights.sum(axis=1)

    drawn = np.concatenate([mean(weights) for weights in groups.samples(statistics.SAMPLES, seed)])
    value = float(saving.mean())
    if np.ptp(drawn) <= 1e-9 * abs(value):
        bounds = Bounds(value=value, low=value, high=value)
    else:
        value, low, high = statistics.interval(mean, groups, drawn)
        bounds = Bounds(value=value, low=low, high=high)
    return msgspec.structs.replace(result, saving_per_request_usd=bounds)
