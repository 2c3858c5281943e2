"""The cost of one epoch over the training rows at each vendor, from the catalog's dated prices.

Tokens are counted exactly if the vendor's tokenizer is available. Otherwise they are bounded: no token spans two
words, and every token has at least one byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cloudtune.catalog import load, vendors
from cloudtune.data.checks.limits import WORD
from cloudtune.data.checks.openai_tokens import OpenAITokens, encoding_of
from cloudtune.data.checks.record_checks import faults_of
from cloudtune.data.problem_list import Faults
from cloudtune.data.read.reading import read
from cloudtune.data.records import Chat, canonical
from cloudtune.data.rules import texts
from cloudtune.data.split import shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudtune.catalog import Catalog, Price
    from cloudtune.data.places import Batch
    from cloudtune.data.records import Record
    from cloudtune.spec import Data

_A_TURN = 8
"""Maximum tokens that a vendor adds around a turn."""


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
    """Count the tokens of the training rows."""
    found, keep = Tokens(), shares(data)
    encoding = encoding_of("gpt-4o")
    counter = OpenAITokens(encoding) if encoding else None
    if encoding:
        found.exact[encoding] = 0
    for whole in read(data.train, Faults()):
        batch = change(whole) if change else whole
        records = [one for one in batch.records if not faults_of(one, method=method)]
        learnt = [one for one in records if keep.side(canonical(one)) == "train"]
        for record in learnt:
            least, most = bounds(record)
            found.least += least
            found.most += most
        if encoding and counter is not None:
            found.exact[encoding] += sum(counter.count(learnt))
    return found


def bounds(record: Record) -> tuple[int, int]:
    """The least and the most tokens that a record may have."""
    words = [text for _, _, text in texts(record)]
    turns = len(record.messages) if isinstance(record, Chat) else 1
    least = sum([sum(1 for _ in WORD.finditer(text)) for text in words])
    return least, sum([len(text.encode()) for text in words]) + _A_TURN * turns


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
