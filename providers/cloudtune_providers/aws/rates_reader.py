"""Reads the hourly prices of SageMaker's instances in one region from AWS's price list. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from cloudtune.catalog import Catalog, Rates, Source
from cloudtune.catalog.overlay import usable_name
from cloudtune_providers.aws.price_list import PriceList, Use

if TYPE_CHECKING:
    from datetime import date

    from cloudtune_providers.aws.clients import Clients

SHELF_DAYS = 30


def read_catalog(clients: Clients, vendor: str, on: date) -> Catalog:
    """All prices of the region in use."""
    region = clients.region
    found: dict[Use, dict[str, float]] = {use: {} for use in get_args(Use)}
    for use, kind, usd in PriceList(clients).hours(region):
        if usable_name(kind):
            found[use][kind] = usd
    key = f"price_list_{region}"
    rates = tuple(Rates(use=use, region=region, usd=usd, source=key) for use, usd in found.items() if usd)
    source = Source(title=f"AWS price list of {region}", seen=on, shelf_days=SHELF_DAYS)
    return Catalog(format=1, vendor=vendor, as_of=on, sources={key: source} if rates else {}, rates=rates)
