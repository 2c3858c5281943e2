"""The cost of a job: exact if its tokens were counted, else between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.plan import CostEstimate
from cloudtune_providers.openai_dialect.model_names import base_of

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.plan import DataReport, TokenCount
    from cloudtune.spec import JobSpec

_UNITS = {"1M tokens": 1e6, "1K tokens": 1e3}


def estimate(spec: JobSpec, data: DataReport, catalog: Catalog, backend: str, tier: str = "") -> CostEstimate | None:
    """The cost of training by the catalog's price, or None where it has none for that model, method and tier."""
    model = base_of(spec.model_for(backend) or "")
    price = catalog.price("training", model, spec.method.name, tier)
    if price is None:
        return None
    cited = "; ".join(part for part in (catalog.cite(price.source), price.note) if part)
    as_of = catalog.sources[price.source].seen.isoformat()
    if (unit := _UNITS.get(price.per)) is None:
        basis = f"{price.usd:g} USD per {price.per} of training; the duration is unknown ({cited})"
        return CostEstimate(usd=None, basis=basis, prices_as_of=as_of)
    epochs_setting = spec.overrides.get(backend, {}).get("n_epochs") or spec.hyperparameters.epochs
    epochs = 1.0 if epochs_setting is None or epochs_setting == "auto" else float(epochs_setting)
    is_known = epochs_setting not in (None, "auto")
    tokens = data.splits["train"].tokens
    if tokens is None:
        basis = f"{price.usd:g} USD per {price.per}, and how many tokens the rows have is not known: {cited}"
        return CostEstimate(usd=None, basis=basis, prices_as_of=as_of)
    least, most = (round(number * epochs * price.usd / unit, 4) for number in (tokens.least, tokens.most))
    times = f"in {epochs:g} epochs" if is_known else "per epoch, whose number the service chooses,"
    return CostEstimate(
        usd=most if tokens.counted_by and is_known else None, at_least_usd=least or None, at_most_usd=most,
        basis=f"{_words(tokens)} {times} at {price.usd:g} USD per {price.per}: {cited}", prices_as_of=as_of,
    )  # fmt: skip


def _words(tokens: TokenCount) -> str:
    if tokens.counted_by:
        return f"{tokens.least:,} tokens, counted with {tokens.counted_by},"
    return f"between {tokens.least:,} and {tokens.most:,} tokens"
