"""Service Quotas of SageMaker, which moto lacks: the number of instances of each type for each use.

Shapes: botocore 1.44.5, service model service-quotas/2019-06-24. Where no value was ever set for an account, only the
list of AWS's own has the quota (docs.aws.amazon.com/servicequotas/2019-06-24/apireference/API_ListServiceQuotas.html,
seen 2026-11-21). Codes are invented, and so are the values.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import shapes
from cloudtune_emulator.aws.errors import AwsError
from cloudtune_emulator.http import Reply

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

APPLIED, DEFAULTS = "servicequotas.ListServiceQuotas", "servicequotas.ListAWSDefaultServiceQuotas"
CALLS = frozenset({APPLIED, DEFAULTS})
_SERVICE = "sagemaker"
_JSON = "application/x-amz-json-1.1"
_TYPES = (
    "ml.m5.xlarge", "ml.m5.2xlarge", "ml.m5.4xlarge", "ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g5.2xlarge",
    "ml.g5.4xlarge", "ml.g5.8xlarge", "ml.g5.12xlarge", "ml.g5.48xlarge", "ml.g6e.2xlarge", "ml.p4d.24xlarge",
    "ml.p5.48xlarge",
)  # fmt: skip
_USES = ("training job usage", "spot training job usage", "training warm pool usage", "endpoint usage")
_VALUE = 4.0
_LONGEST_TOKEN = 10
_UNTOUCHED = ("ml.p4d.", "ml.p5.")
"""Types without a quota in the account: only the defaults list them, with 0."""


def listed(context: EmulatorContext, call: Call) -> Reply | None:
    """ListServiceQuotas and ListAWSDefaultServiceQuotas; None for services that moto handles."""
    request = shapes.json_body(call, "service-quotas", call.name.partition(".")[2])
    if request.get("ServiceCode") != _SERVICE:
        return None
    found = _quotas(context, call.region or context.settings.aws_region, is_default=call.name == DEFAULTS)
    token = request.get("NextToken") or "0"
    if not (token.isascii() and token.isdecimal() and len(token) < _LONGEST_TOKEN):
        raise AwsError(400, "InvalidPaginationTokenException", "Invalid NextToken.", protocol="json")
    start, size = int(token), int(request.get("MaxResults") or 20)
    body: dict[str, Any] = {"Quotas": found[start : start + size]}
    if start + size < len(found):
        body["NextToken"] = str(start + size)
    return Reply(body=body, content_type=_JSON)


def _quotas(context: EmulatorContext, region: str, *, is_default: bool) -> list[dict[str, Any]]:
    values = {
        f"{kind} for {use}": 0.0 if is_default else _VALUE
        for kind in _TYPES
        for use in _USES
        if is_default or not kind.startswith(_UNTOUCHED)
    }
    if not is_default:
        values |= context.settings.sagemaker_quotas
    return [_quota(context, region, name, value) for name, value in sorted(values.items())]


def _quota(context: EmulatorContext, region: str, name: str, value: float) -> dict[str, Any]:
    code = f"L-{zlib.crc32(name.encode()):08X}"
    return {
        "ServiceCode": _SERVICE, "ServiceName": "Amazon SageMaker", "QuotaName": name, "QuotaCode": code,
        "QuotaArn": f"arn:aws:servicequotas:{region}:{context.settings.aws_account}:{_SERVICE}/{code}",
        "Value": value, "Unit": "None", "Adjustable": True, "GlobalQuota": False,
    }  # fmt: skip
