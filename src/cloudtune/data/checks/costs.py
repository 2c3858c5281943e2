"""The cost of one epoch over the training rows at each vendor, from the catalog's dated prices.

Tokens are counted exactly if the vendor's tokenizer is available. Otherwise they are bounded: no token spans two
words, and every token has at least one byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cloudtune.catalog import load, vendors
from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.checks.targets import known_target
from cloudtune.data.checks.token_counts import TokenBounds, unread
from cloudtune.data.checks.tokens import counter_of
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import canonical, canonical_lines
from cloudtune.data.split import shares
from cloudtune.methods import DEFAULT_METHOD, only_items
from cloudtune.pricing import usd_of

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
    """Lower and upper bound; equal if the tokens are counted."""
    tokens: tuple[int, int]
    counted: Literal["exact", "bounds"]
    usd_per_million: float
    tier: str = ""
    source: str
    prices_as_of: str
    note: str = ""


class Tokens(msgspec.Struct):
    """The number of tokens of the training rows."""

    least: int = 0
    most: int = 0
    exact: dict[str, int] = {}
    """Counters by the name of the encoding."""


def count(data: Data, *, method: str = DEFAULT_METHOD, change: Callable[[Batch], Batch] | None = None) -> Tokens:
    """Count the tokens of the training rows with the tokenizer of each model that has a price."""
    found, keep = Tokens(), shares(data)
    names = {_tokenizer(vendor, model, method) for vendor, model, _, _ in _priced(method)}
    counters = {name: counter_of(name) for name in sorted(name for name in names if name is not None)}
    found.exact = dict.fromkeys(counters, 0)
    bounds, has_unread = TokenBounds(), False
    for whole in read(data.train, Faults(), items=only_items(method)):
        batch = change(whole) if change else whole
        records = [one for one in batch.records if not faults_of(one, method=method)]
        learnt = [one for one in records if keep.side(canonical(one)) == "train"]
        lines = canonical_lines(learnt)
        bounds.add(lines, len(learnt))
        has_unread = has_unread or unread(lines)
        for name, counter in counters.items():
            found.exact[name] += sum(counter.count(learnt))
    found.least, found.most = bounds.least(unread=has_unread), bounds.most()
    return found


def estimates(tokens: Tokens, method: str, backend: str | None = None, model: str | None = None) -> list[Cost]:
    """The cost of a pass on every model with a price in the catalog, cheapest first."""
    found = [
        _cost(tokens, _tokenizer(vendor, name, method), vendor, name, price, catalog)
        for vendor, name, price, catalog in _priced(method, backend, model)
    ]
    return sorted(found, key=lambda cost: (cost.usd[1], cost.backend, cost.model))


def _priced(
    method: str, backend: str | None = None, model: str | None = None
) -> Iterator[tuple[str, str, Price, Catalog]]:
    """Every back end and model with a price of training by tokens."""
    for vendor in vendors():
        if backend not in (None, vendor):
            continue
        catalog = load(vendor)
        names = [model] if model else [one.id for one in catalog.models if method in one.methods]
        tiers = sorted({price.tier for price in catalog.prices if price.what == "training"})
        for name in names:
            for tier in tiers:
                price = catalog.price("training", name, method, tier)
                if price is not None and price.tier == tier and price.per == "1M tokens":
                    yield vendor, name, price, catalog


def _tokenizer(vendor: str, model: str, method: str) -> str | None:
    """The exact token counter of the model, if known and installed."""
    target = known_target(vendor, model, method)
    return target.tokenizer if target is not None else None


def _cost(tokens: Tokens, tokenizer: str | None, vendor: str, model: str, price: Price, catalog: Catalog) -> Cost:
    known = tokens.exact.get(tokenizer) if tokenizer else None
    span = (tokens.least, tokens.most) if known is None else (known, known)
    usd = (usd_of(span[0], price.usd), usd_of(span[1], price.usd))
    return Cost(
        backend=vendor, model=model, usd=usd, tokens=span, counted="bounds" if known is None else "exact",
        usd_per_million=price.usd, tier=price.tier, source=catalog.cite(price.source),
        prices_as_of=str(catalog.sources[price.source].seen), note=price.note,
    )  # fmt: skip
