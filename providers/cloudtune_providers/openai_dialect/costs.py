"""What a job will cost, between two bounds: the vendors' tokenizers are not here, so that tokens cannot be counted.

A token has a byte at least, and no word and no group of digits shares its token with the next one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudtune.backend import CostEstimate
from cloudtune.data.preparing import sources
from cloudtune_providers.openai_dialect.rules import base_of

if TYPE_CHECKING:
    from cloudtune.backend import DataReport
    from cloudtune.catalog import Catalog
    from cloudtune.spec import JobSpec

# No token spans two words, three digits are the most in one, and an apostrophe may join two runs of letters
# (github.com/openai/tiktoken, openai_public.py, o200k_base; seen 2026-11-21).
LEAST = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|\d{1,3}")
READ_AT_MOST = 4_000_000
"""Bytes of the rows whose words are counted: what is left out makes the lower bound lower, and it stays one."""
_PER_TOKENS = {"1M tokens": 1e6, "1K tokens": 1e3}


def estimate(spec: JobSpec, data: DataReport, catalog: Catalog, backend: str, tier: str = "") -> CostEstimate | None:
    """The cost of training by the catalog's price, or None where it has none for that model, method and tier."""
    price = catalog.price("training", base_of(spec.model_for(backend) or ""), spec.method.name, tier)
    if price is None:
        return None
    cited = "; ".join(part for part in (catalog.cite(price.source), price.note) if part)
    as_of = catalog.sources[price.source].seen.isoformat()
    if (unit := _PER_TOKENS.get(price.per)) is None:
        basis = f"{price.usd:g} USD for each {price.per} of training, and how long it takes is not known ({cited})"
        return CostEstimate(usd=None, basis=basis, prices_as_of=as_of)
    asked = spec.overrides.get(backend, {}).get("n_epochs") or spec.hyperparameters.epochs
    epochs = 1.0 if asked in (None, "auto") else float(asked)
    least, most = least_tokens(spec), data.splits["train"].bytes
    times = f"x {epochs:g} epochs" if asked not in (None, "auto") else "in each epoch, and the service chooses how many"
    counted = f"between {least:,} and {most:,} tokens" if least else f"{most:,} tokens at the most"
    return CostEstimate(
        usd=None, basis=f"{counted} {times}, at {price.usd:g} USD for {price.per} ({cited})", prices_as_of=as_of,
        at_least_usd=round(least * epochs * price.usd / unit, 4) if least else None,
        at_most_usd=round(most * epochs * price.usd / unit, 4),
    )  # fmt: skip


def least_tokens(spec: JobSpec) -> int:
    """At least so many tokens are in the training rows; 0 where the files do not tell which rows those will be."""
    from cloudtune.data.faults import Faults
    from cloudtune.data.reading import read
    from cloudtune.data.records import canonical

    data: Any = spec.data
    if data.mix or isinstance(data.validation, float) or isinstance(data.test, float):
        return 0
    least = seen = 0
    for batch in read(sources(data)["train"], Faults()):
        for record in batch.records:
            text = canonical(record).decode()
            least += sum(1 for _ in LEAST.finditer(text))
            seen += len(text)
            if seen > READ_AT_MOST:
                return least
    return least
