"""Computes costs from token counts, run times and dated prices. Pure.

Every back end estimates with these functions, and `actual` computes what a job cost from the vendor's record of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cloudtune.cost import ActualCost, AnswerPrice, CostEstimate

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog, Price
    from cloudtune.cost import Usage
    from cloudtune.plan import PlanRequest, SplitInfo, TokenCount
    from cloudtune.state import JobSnapshot

_TOKENS = {"1M tokens": 1e6, "1K tokens": 1e3}
_LATER = {"storage": "storage of the model", "hosting": "hosting", "input": "prompts", "output": "answers"}


def per_million(price: Price) -> float | None:
    """The price of a million tokens; None if it is not a price by tokens."""
    unit = _TOKENS.get(price.per)
    return None if unit is None else price.usd * 1e6 / unit


def usd_of(tokens: float, per_million_usd: float) -> float:
    """The price of so many tokens, to a hundredth of a cent."""
    return round(tokens * per_million_usd / 1e6, 4)


def answer_price(catalog: Catalog, model: str, *, base: bool = False) -> AnswerPrice | None:
    """The prices of the answers of models tuned on that model, or its own. None if it does not have both by tokens."""
    found = [catalog.price(f"base_{what}" if base else what, model) for what in ("input", "output")]
    each = [None if price is None else per_million(price) for price in found]
    if found[0] is None or each[0] is None or each[1] is None:
        return None
    return AnswerPrice(prompt=each[0], answer=each[1], source=catalog.cite(found[0].source))


def by_tokens(
    catalog: Catalog, model: str, method: str, train: SplitInfo, *, epochs: float | None, tier: str = "",
    likely: float | None = None,
) -> CostEstimate:  # fmt: skip
    """The cost of a job that is billed by its training tokens.

    Args:
        catalog: The vendor's prices.
        model: The base model, as the catalog names it.
        method: The method.
        train: The training rows, with their tokens.
        epochs: The number of epochs. None if the service chooses it; the figures are then for one epoch.
        tier: The tier of the price.
        likely: The most likely number of tokens, if they were not counted.
    """
    later = _later(catalog, model, tier)
    price = catalog.price("training", model, method, tier)
    if price is None:
        where = f"{model} ({tier})" if tier else model
        basis = f"unknown: the catalog of {catalog.vendor} has no price of training {where} with {method}"
        return CostEstimate(usd=None, basis=basis, unknown=("the price of training",), later=later)
    cited = "; ".join(part for part in (catalog.cite(price.source), price.note) if part)
    made = CostEstimate(usd=None, basis="", prices_as_of=catalog.sources[price.source].seen.isoformat(), later=later)
    each = per_million(price)
    if each is None:
        basis = f"{price.usd:g} USD per {price.per} of training; the duration is unknown ({cited})"
        return msgspec.structs.replace(made, basis=basis, unknown=("the duration of training",))
    made = msgspec.structs.replace(made, usd_per_million_tokens=each)
    tokens = train.tokens
    if tokens is None:
        basis = f"{price.usd:g} USD per {price.per}, and how many tokens the rows have is not known: {cited}"
        return msgspec.structs.replace(made, basis=basis, unknown=("the number of tokens",))
    times = f"in {epochs:g} epochs" if epochs is not None else "per epoch, whose number the service chooses,"
    likely = float(tokens.most) if tokens.counted_by else likely
    least, most = (usd_of(number * (epochs or 1.0), each) for number in (tokens.least, tokens.most))
    return msgspec.structs.replace(
        made,
        usd=None if likely is None or epochs is None else usd_of(likely * epochs, each),
        at_least_usd=least or None, at_most_usd=most,
        unknown=() if epochs is not None else ("the number of epochs",),
        basis=f"{_words(tokens, likely)} {times} at {price.usd:g} USD per {price.per}: {cited}",
    )  # fmt: skip


def _words(tokens: TokenCount, likely: float | None) -> str:
    if tokens.counted_by:
        return f"{tokens.least:,} tokens, counted with {tokens.counted_by},"
    about = "" if likely is None else f"about {likely:,.0f} tokens, "
    return f"{about}between {tokens.least:,} and {tokens.most:,} tokens"


def _later(catalog: Catalog, model: str, tier: str) -> tuple[str, ...]:
    """What the vendor bills for a tuned model, by the catalog's prices; what is free is not listed."""
    found = {what: catalog.price(what, model, tier=tier) for what in _LATER}
    return tuple(f"{_LATER[what]}: {price.usd:g} USD per {price.per}" for what, price in found.items()
                 if price is not None and price.usd)  # fmt: skip


def by_time(
    request: PlanRequest, what: str, usd_per_hour: float, cited: str, *, as_of: str | None = None,
    epochs: float | None = None, limit_s: float | None = None,
    billed_after_s: float = 0.0, time_limit: Literal["none", "stops", "keeps_model"] = "keeps_model",
) -> CostEstimate:  # fmt: skip
    """The cost of a job that is billed by its run time.

    Args:
        request: The job, with the speed of earlier jobs with the same settings.
        what: What is billed, such as ``2 x ml.g5.2xlarge``.
        usd_per_hour: The price of an hour of all of it.
        cited: What the price excludes, and its source.
        as_of: The date of the price.
        epochs: The number of epochs. None if it is unknown.
        limit_s: The run time at which the job is stopped.
        billed_after_s: How long the machines are kept after the job at most. Only the maximum includes it.
        time_limit: See `CostEstimate`.
    """
    if usd_per_hour == 0:
        return CostEstimate(
            usd=0.0, at_least_usd=0.0, at_most_usd=0.0, basis=f"{what} at 0 USD per hour: {cited}", prices_as_of=as_of,
            usd_per_hour=0.0, time_limit=time_limit,
        )  # fmt: skip
    hours: tuple[float | None, float | None, float | None] = (None, None, None)
    measured = request.measured
    if request.parent is not None:
        why = f"how much {request.parent} left to train is only known at the start"
    elif epochs is None:
        why = "it is not limited by epochs"
    else:
        why = "no earlier job with these settings was measured"
    how = f"how long it runs is unknown: {why}"
    if measured is not None and epochs is not None:
        work = request.data.splits["train"].bytes * epochs / 1e6 / 3600
        hours = (measured.least_s * work, measured.median_s * work, measured.most_s * work)
        how = f"about {hours[1]:.3g} h, as measured in {measured.jobs} earlier job{'s'[: measured.jobs > 1]}"
    limit = None if limit_s is None else limit_s / 3600
    least, likely, _ = ((None if hour is None else min(hour, limit or hour)) for hour in hours)
    if limit is not None:
        how += f", and at most {limit:g} h"
    if billed_after_s:
        how += f", and up to {billed_after_s / 3600:g} h that the machines are kept after it"
    return CostEstimate(
        usd=None if likely is None else round(likely * usd_per_hour, 4),
        at_least_usd=None if least is None else round(least * usd_per_hour, 4),
        at_most_usd=None if limit is None else round((limit + billed_after_s / 3600) * usd_per_hour, 4),
        basis=f"{what} at {usd_per_hour:g} USD per hour: {how}; {cited}",
        prices_as_of=as_of, usd_per_hour=usd_per_hour, billed_after_s=billed_after_s, time_limit=time_limit,
        unknown=() if likely is not None or limit is not None else ("the run time",),
    )  # fmt: skip


def actual(cost: CostEstimate | None, usage: Usage, job: JobSnapshot) -> ActualCost:
    """The cost of a job that has ended: what the vendor recorded, at the prices of the job's plan."""
    usd, basis = None, usage.note or "the vendor reports neither tokens nor seconds"
    each, hour = (cost.usd_per_million_tokens, cost.usd_per_hour) if cost is not None else (None, None)
    if usage.tokens is not None:
        usd = None if each is None else usd_of(usage.tokens, each)
        basis = f"{usage.tokens:,} tokens" + (f" at {each:g} USD per 1M tokens" if each is not None else "")
    elif usage.seconds is not None:
        usd = None if hour is None else round((usage.seconds + usage.seconds_after) / 3600 * hour, 4)
        after = f" and {usage.seconds_after:,.0f} s after it" if usage.seconds_after else ""
        basis = f"{usage.seconds:,.0f} s{after}" + (f" at {hour:g} USD per hour" if hour is not None else "")
    if usd is None and (usage.tokens is not None or usage.seconds is not None):
        basis += "; the price is unknown"
    ended = job.finished_at.isoformat() if job.finished_at is not None else ""
    return ActualCost(usd=usd, usage=usage, basis=basis, state=job.state, ended_at=ended, epochs=job.progress.epoch)
