"""AWS's price list: hourly prices of SageMaker instances. Read-only.

A product is identified by region, type and component (``Training``, ``Hosting``), and is a separate JSON string
(docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html, seen 2026-11-21).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.errors import InvalidResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune_providers.aws.clients import Clients

_SERVICE = "AmazonSageMaker"
Use = Literal["training", "hosting"]
_COMPONENTS: Mapping[Use, str] = {"training": "Training", "hosting": "Hosting"}
_PAGE = 100


class PriceList:
    """The current list."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def hour(self, use: Use, kind: str, region: str) -> tuple[float, str] | None:
        """The on-demand price in USD, and its first valid day; None if the list has no such product."""
        for product in self._products(regionCode=region, instanceName=kind):
            if _attributes(product).get("component") == _COMPONENTS[use] and (found := _hour(product)) is not None:
                return found
        return None

    def hours(self, region: str) -> Iterator[tuple[Use, str, float]]:
        """All on-demand prices of a region in USD, with their use and instance type."""
        uses = {component: use for use, component in _COMPONENTS.items()}
        for product in self._products(regionCode=region):
            attributes = _attributes(product)
            use, found = uses.get(str(attributes.get("component"))), _hour(product)
            if use is not None and found is not None:
                yield use, str(attributes.get("instanceName") or ""), found[0]

    def _products(self, **attributes: str) -> Iterator[Mapping[str, Any]]:
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in attributes.items()]
        more: dict[str, str] = {}
        while True:
            with self._clients.asking("AWS's price list"):
                page = self._clients.client("pricing").get_products(
                    ServiceCode=_SERVICE, FormatVersion="aws_v1", Filters=filters, MaxResults=_PAGE, **more
                )
            for text in page.get("PriceList", ()):
                try:
                    yield json.loads(text)
                except ValueError as error:
                    raise InvalidResponse("AWS's price list is not valid JSON") from error
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}


def _attributes(product: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = product.get("product", {}).get("attributes", {})
    return found


def _hour(product: Mapping[str, Any]) -> tuple[float, str] | None:
    """The price of an hour in USD, and its first valid day."""
    for term in (product.get("terms", {}).get("OnDemand") or {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            usd = float(dimension.get("pricePerUnit", {}).get("USD") or 0)
            if 0 < usd < float("inf") and str(dimension.get("unit")).lower().startswith("h"):
                return usd, str(term.get("effectiveDate") or product.get("publicationDate") or "")[:10]
    return None
