"""Which models can be tuned where: one entry for each back end, model, method and price of training."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from cloudtune.state import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.catalog.document import Catalog, Model, Price


class TunableModel(Value, frozen=True, kw_only=True):
    """A base model with one method, as the catalog of a back end has it."""

    backend: str
    model: str
    method: str
    open: bool
    """Whether it accepts new jobs on the day of the question."""
    no_new_customers_from: date | None
    no_new_jobs_from: date | None
    """The first of the dates of the model, the method and the service."""
    ends: date | None
    training_usd: float | None
    """None: unknown, or billed by the instance."""
    per: str
    tier: str
    source: str
    """Where the model's entry comes from."""
    read: date
    """When it was read."""
    stale: bool
    """Whether the entry or its price was read too long ago: longer than the shelf life of its source."""
    price_source: str
    note: str


def tunable(catalog: Catalog, on: date, method: str | None = None) -> Iterator[TunableModel]:
    """The models of a catalog with their methods, or one method, as they are on that day."""
    for model in catalog.models:
        for name in model.methods:
            if method in (None, name):
                for price in _prices(catalog, model, name):
                    yield _entry(catalog, model, name, price, on)


def _entry(catalog: Catalog, model: Model, method: str, price: Price | None, on: date) -> TunableModel:
    closing = [notice.on for notice in catalog.notices
               if notice.what in ("no_new_jobs", "service_ends", "feature_ends")
               and (not notice.methods or method in notice.methods)]  # fmt: skip
    closing += [day for day in (model.no_new_jobs_from, model.ends) if day is not None]
    first = min(closing, default=None)
    source = catalog.sources[model.source]
    sources = [source] + ([catalog.sources[price.source]] if price is not None else [])
    return TunableModel(
        backend=catalog.vendor, model=model.id, method=method, open=first is None or on < first,
        no_new_customers_from=model.no_new_customers_from, no_new_jobs_from=first, ends=model.ends,
        training_usd=price.usd if price is not None else None, per=price.per if price is not None else "",
        tier=price.tier if price is not None else "", source=source.title, read=source.seen,
        stale=any(one.is_stale(on) for one in sources),
        price_source=catalog.cite(price.source) if price is not None else "",
        note="; ".join(text for text in (model.note, price.note if price is not None else "") if text),
    )  # fmt: skip


def _prices(catalog: Catalog, model: Model, method: str) -> list[Price] | list[None]:
    """The first price of training for each tier; one None if there is none."""
    tiers = dict.fromkeys(price.tier for price in catalog.prices if price.what == "training")
    found = [price for tier in tiers if (price := catalog.price("training", model.id, method, tier)) is not None]
    found = [price for number, price in enumerate(found) if price not in found[:number]]
    return found or [None]
