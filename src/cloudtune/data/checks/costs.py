"""What one pass over the training rows would cost at each vendor, from the catalog's dated prices.

Tokens are counted exactly where a vendor's tokenizer can be had, and lie between two bounds where it cannot: no token
spans two words, and none has less than a byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cloudtune.catalog import load, vendors
from cloudtune.data.checks.openai_tokens import OpenAITokens, encoding_of
from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.checks.token_counts import TokenBounds, unread
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import canonical, canonical_lines
from cloudtune.data.split import shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.catalog import Catalog, Price
    from cloudtune.data.places import Batch
    from cloudtune.spec import Data


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training rows on one model."""

    backend: str
    model: str
    usd: tuple[float, float]
    """At least and at most; the same where the tokens are counted."""
    tokens: tuple[int, int]
    counted: Literal["exact", "bounds"]
    usd_per_million: float
    tier: str = ""
    source: str
    prices_as_of: str
    note: str = ""


class Tokens(msgspec.Struct):
    """How many tokens the training rows have."""

    least: int = 0
    most: int = 0
    exact: dict[str, int] = {}
    """By the name of the encoding."""


def count(data: Data, *, method: str = "sft", change: Callable[[Batch], Batch] | None = None) -> Tokens:
    """Go through the rows that would be learnt and count what they have."""
    found, keep = Tokens(), shares(data)
    encoding = encoding_of("gpt-4o")
    counter = OpenAITokens(encoding) if encoding else None
    if encoding:
        found.exact[encoding] = 0
    bounds, has_unread = TokenBounds(), False
    for whole in read(data.train, Faults()):
        batch = change(whole) if change else whole
        records = [one for one in batch.records if not faults_of(one, method=method)]
        learnt = [one for one in records if keep.side(canonical(one)) == "train"]
        lines = canonical_lines(learnt)
        bounds.add(lines, len(learnt))
        has_unread = has_unread or unread(lines)
        if encoding and counter is not None:
            found.exact[encoding] += sum(counter.count(learnt))
    found.least, found.most = bounds.least(unread=has_unread), bounds.most()
    return found


def estimates(tokens: Tokens, method: str, backend: str | None = None, model: str | None = None) -> list[Cost]:
    """What a pass costs on every model that the catalog has a price for, cheapest first."""
    found = [
        _cost(tokens, vendor, name, price, catalog)
        for vendor in vendors() if backend in (None, vendor)
        for catalog in (load(vendor),)
        for name, price in _priced(catalog, method, model)
    ]  # fmt: skip
    return sorted(found, key=lambda cost: (cost.usd[1], cost.backend, cost.model))


def _priced(catalog: Catalog, method: str, model: str | None) -> Iterator[tuple[str, Price]]:
    names = [model] if model else [one.id for one in catalog.models if method in one.methods]
    tiers = sorted({price.tier for price in catalog.prices if price.what == "training"})
    for name in names:
        for tier in tiers:
            price = catalog.price("training", name, method, tier)
            if price is not None and price.tier == tier and price.per == "1M tokens":
                yield name, price


def _cost(tokens: Tokens, vendor: str, model: str, price: Price, catalog: Catalog) -> Cost:
    encoding = encoding_of(model) if vendor in ("openai", "azure_openai") else None
    known = tokens.exact.get(encoding) if encoding else None
    span = (tokens.least, tokens.most) if known is None else (known, known)
    usd = (round(span[0] * price.usd / 1e6, 4), round(span[1] * price.usd / 1e6, 4))
    return Cost(
        backend=vendor, model=model, usd=usd, tokens=span, counted="bounds" if known is None else "exact",
        usd_per_million=price.usd, tier=price.tier, source=catalog.cite(price.source),
        prices_as_of=str(catalog.sources[price.source].seen), note=price.note,
    )  # fmt: skip
