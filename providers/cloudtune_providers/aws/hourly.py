"""The hourly cost of SageMaker's instances, from the catalog's dated prices. Pure.

Most pairs of type and region have no price, and are not estimated: ``plan --check-remote`` asks AWS's price list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.catalog import load
from cloudtune.plan import CostEstimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.catalog import Rate

_VENDOR = "sagemaker"
NOT_KNOWN = "the hourly price is unknown"


def rate_of(use: str, kind: str, region: str) -> Rate | None:
    """The price of an hour of that type, for ``training`` or ``hosting``."""
    return load(_VENDOR).rate(use, kind, region)


def training(kind: str, count: int, seconds: float, region: str, *, spot: bool) -> CostEstimate:
    """Return the maximum cost of a job: its maximum run time at the on-demand price."""
    what, cheaper = (
        f"{count} x {kind}",
        "; less on spot instances, which bill fewer seconds" if spot else "",
    )
    rate = rate_of("training", kind, region)
    if rate is None:
        return CostEstimate(usd=None, basis=f"{what} by the second in {region}{cheaper}; {NOT_KNOWN}")
    hours = seconds / 3600
    basis = (
        f"up to {hours:g} h of {what} at {rate.usd:g} USD per hour in {region}{cheaper}; billed per second of "
        f"run time, excluding disks and storage; {rate.cited}"
    )
    most = round(hours * count * rate.usd, 2)
    return CostEstimate(usd=None, basis=basis, prices_as_of=rate.as_of, at_most_usd=most)


def hosting(kind: str, count: int, region: str, *, sleeps: bool) -> CostEstimate:
    """The cost of an endpoint per hour; it has no end, and therefore no total."""
    what = f"{'up to ' if sleeps else ''}{count} x {kind} by the hour"
    when = "while in use, nothing when idle" if sleeps else "even when idle, until deleted"
    rate = rate_of("hosting", kind, region)
    if rate is None:
        return CostEstimate(usd=None, basis=f"{what} {when}; {NOT_KNOWN}")
    text = f"{count * rate.usd:g} USD per hour in {region}, prices of {rate.as_of}; {rate.cited}"
    return CostEstimate(usd=None, basis=f"{what} {when}: {text}", prices_as_of=rate.as_of)


def hosting_prices(region: str) -> Callable[[str], float | None]:
    """The hourly price of an instance type in that region; None if unknown."""

    def price(kind: str) -> float | None:
        rate = rate_of("hosting", kind, region)
        return rate.usd if rate else None

    return price


def region_of(scope: str) -> str:
    """The region in a scope, ``account/region@host``."""
    return scope.partition("/")[2].partition("@")[0]
