"""AWS's price list for SageMaker's instances, which moto lacks. It has only the prices in the catalog.

Shapes: botocore 1.44.5, service model pricing/2017-10-15; a product's form as in
docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api-fetching-price-list-files.html
(seen 2026-11-21).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudtune.catalog import load
from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.http import Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

CALL = "pricing.GetProducts"
_SERVICE = "AmazonSageMaker"
_JSON = "application/x-amz-json-1.1"


def products(context: EmulatorContext, call: Call) -> Reply:
    """GetProducts."""
    del context
    request = shapes.json_body(call, "pricing", "GetProducts")
    if request.get("ServiceCode") != _SERVICE:
        raise AwsError(400, "NotFoundException", f"Only the prices of {_SERVICE} are emulated.", protocol="json")
    wanted = {one["Field"]: one["Value"] for one in request.get("Filters") or ()}
    region, kind = wanted.get("regionCode", ""), wanted.get("instanceName")
    kinds = [kind] if kind is not None else sorted({one for rates in load("sagemaker").rates for one in rates.usd})
    pairs = [(use, one) for one in kinds for use in ("training", "hosting")]
    found = [product for use, one in pairs if (product := _product(use, one, region)) is not None]
    return Reply(body={"FormatVersion": "aws_v1", "PriceList": [json.dumps(one) for one in found]}, content_type=_JSON)


def _product(use: str, kind: str, region: str) -> dict[str, Any] | None:
    rate = load("sagemaker").rate(use, kind, region)
    if rate is None:
        return None
    attributes = {"servicecode": _SERVICE, "component": use.title(), "instanceName": kind, "regionCode": region}
    price = {"unit": "Hrs", "pricePerUnit": {"USD": f"{rate.usd:.10f}"}, "description": f"{use.title()} {kind} hour"}
    since = f"{rate.as_of}T00:00:00Z"
    term = {"effectiveDate": since, "priceDimensions": {"SKU.TERM.RATE": price}}
    return {
        "product": {"productFamily": "ML Instance", "attributes": attributes, "sku": "SKU"},
        "serviceCode": _SERVICE, "terms": {"OnDemand": {"SKU.TERM": term}}, "publicationDate": since,
    }  # fmt: skip
