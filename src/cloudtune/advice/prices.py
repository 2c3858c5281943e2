"""The prices of a break-even: from the catalog, the ledger and the user. A price that is not known is None."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import msgspec

from cloudtune.catalog import load, vendors
from cloudtune.errors import InputError, Problem
from cloudtune.ledger.costs import JobCost, recorded_cost
from cloudtune.pricing import answer_price
from cloudtune.state import JobRef, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune.catalog import Catalog, Price
    from cloudtune.ledger.ledger import Ledger

HOURS_PER_MONTH = 730.0
YEAR = 12.0
"""Months."""

PRICES: dict[str, str] = {
    "training": "USD for training, once",
    "hosting_month": "USD per month for hosting and storing the tuned model",
    "base_input": "USD per 1M tokens of prompts to the base model",
    "base_output": "USD per 1M tokens of the base model's answers",
    "tuned_input": "USD per 1M tokens of prompts to the tuned model",
    "tuned_output": "USD per 1M tokens of the tuned model's answers",
}
"""What each price is."""


class Prices(Value, frozen=True, kw_only=True):
    """What the two models cost, as `PRICES` defines it. None: unknown."""

    training: float | None = None
    training_low: float | None = None
    """At least; None if ``training`` is exact."""
    training_high: float | None = None
    hosting_month: float | None = None
    base_input: float | None = None
    base_output: float | None = None
    tuned_input: float | None = None
    tuned_output: float | None = None
    ends: date | None = None
    """The day on which the tuned model stops responding, if one is announced."""
    sources: dict[str, str] = {}
    """Where each price comes from."""

    @property
    def training_bounds(self) -> tuple[float | None, float | None]:
        """The lowest and the highest cost of training."""
        exact = self.training
        low, high = self.training_low, self.training_high
        return exact if low is None else low, exact if high is None else high

    def unknown(self) -> list[str]:
        """The names of the prices that are not known. Bounds are enough for training."""
        found = [name for name in PRICES if getattr(self, name) is None]
        return found if None in self.training_bounds else [name for name in found if name != "training"]

    def months_of_use(self, today: date) -> float:
        """A year, or less if the tuned model ends earlier. Raises InputError if it has ended."""
        if self.ends is None:
            return YEAR
        days = (self.ends - today).days
        if days <= 0:
            raise InputError(f"the tuned model does not respond since {self.ends}", hint="tune another base model")
        return min(YEAR, days * YEAR / 365)

    def given(self, texts: Iterable[str]) -> Prices:
        """The same with a user's prices, such as ``base_input=2.5``. Raises InputError with all problems."""
        found: dict[str, float | None] = {}
        problems = []
        for text in texts:
            name, _, value = text.partition("=")
            try:
                usd = msgspec.convert(value.strip(), float, strict=False)
            except msgspec.ValidationError:
                usd = -1.0
            if name not in PRICES:
                problems.append(Problem(code="price", message=f"unknown price {name!r}", fix=f"known: {_known()}"))
            elif not 0 <= usd < float("inf"):
                message = f"{name} must be a number of at least 0, not {value!r}"
                problems.append(Problem(code="price", message=message, fix=f"write {name}=1.5: {PRICES[name]}"))
            else:
                found[name] = usd
        if problems:
            raise InputError(problems)
        if "training" in found:
            found |= {"training_low": None, "training_high": None}
        sources = self.sources | {name: "given" for name in found if name in PRICES}
        return msgspec.structs.replace(self, **found, sources=sources)


def _known() -> str:
    return ", ".join(PRICES)


def prices_of(backend: str, model: str, job: JobCost | None) -> Prices:
    """The prices of a base model, of models tuned from it, and of the job's training, as far as they are known."""
    catalog = load(backend) if backend in vendors() else None
    prices = Prices() if catalog is None or not model else _of_catalog(catalog, model)
    if job is None:
        return prices
    estimate = job.attempt.plan.cost
    if job.actual is not None and job.actual.usd is not None:
        return msgspec.structs.replace(
            prices, training=job.actual.usd, sources=prices.sources | {"training": job.actual.basis}
        )
    if estimate is None or estimate.unknown:
        return prices
    high = estimate.at_most_usd
    if high is None:  # the most likely cost is not an upper limit
        return prices
    return msgspec.structs.replace(
        prices, training=estimate.usd, training_low=estimate.at_least_usd or 0.0, training_high=high,
        sources=prices.sources | {"training": f"estimate: {estimate.basis}"},
    )  # fmt: skip


def _of_catalog(catalog: Catalog, model: str) -> Prices:
    known: dict[str, float] = {}
    sources: dict[str, str] = {}
    for kind, is_base in (("base", True), ("tuned", False)):
        if (price := answer_price(catalog, model, base=is_base)) is not None:
            known |= {f"{kind}_input": price.prompt, f"{kind}_output": price.answer}
            sources |= dict.fromkeys((f"{kind}_input", f"{kind}_output"), price.source)
    found = catalog.model(model)
    hosting, storage = catalog.price("hosting", model), catalog.price("storage", model)
    # The back end can be set to a compatible service, whose models are not in the catalog.
    if found is not None and hosting is not None and (month := _per_month(hosting)) is not None:
        stored = 0.0 if storage is None else _per_month(storage)
        if stored is not None:
            known["hosting_month"] = month + stored
            cited = dict.fromkeys(catalog.cite(one.source) for one in (hosting, storage) if one is not None)
            sources["hosting_month"] = "; ".join(cited)
    return Prices(**known, ends=found.ends if found is not None else None, sources=sources)


def _per_month(price: Price) -> float | None:
    return {"hour": price.usd * HOURS_PER_MONTH, "model and month": price.usd, "month": price.usd}.get(price.per)


def prices_for(evaluated: str, ledger: Ledger) -> Prices:
    """The known prices of an evaluated model and its base model.

    Args:
        evaluated: ``Evaluation.ref``.
        ledger: The ledger of the job that trained the model. Without the job, its base model is unknown.

    Raises:
        LedgerError: The job's row is damaged.
    """
    try:
        ref = JobRef.parse(evaluated)
    except ValueError:
        return Prices()
    attempt = ledger.of_ref(ref)
    if attempt is None:
        return Prices()
    given = attempt.plan.spec.get("model")
    model = given.get(ref.backend) if isinstance(given, dict) else given
    return prices_of(ref.backend, str(model or ""), JobCost(attempt=attempt, actual=recorded_cost(ledger, ref)))
