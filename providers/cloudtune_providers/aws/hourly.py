"""The hourly cost of SageMaker's instances, from the catalog's dated prices. Pure.

Most pairs of type and region have no price, and are not estimated: ``plan --check-remote`` asks AWS's price list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cloudtune.catalog import load
from cloudtune.cost import CostEstimate, Usage
from cloudtune.pricing import by_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune.catalog import Rate
    from cloudtune.plan import PlanRequest
    from cloudtune.state import JobSnapshot

_VENDOR = "sagemaker"
NOT_KNOWN = "the hourly price is unknown"


def rate_of(use: str, kind: str, region: str) -> Rate | None:
    """The price of an hour of that type, for ``training`` or ``hosting``."""
    return load(_VENDOR).rate(use, kind, region)


def training(
    kind: str, count: int, seconds: float, request: PlanRequest, *, spot: bool, epochs: float | None = None,
    kept_s: float = 0.0, time_limit: Literal["stops", "keeps_model"],
) -> CostEstimate:  # fmt: skip
    """The cost of a job on instances, and its maximum: its maximum run time at the on-demand price.

    ``kept_s`` is how long the instances are kept for the next job, and billed. Their maximum includes it.
    """
    region = region_of(request.resolved.scope)
    cheaper = "; less on spot instances, which bill fewer seconds" if spot else ""
    rate = rate_of("training", kind, region)
    if rate is None:
        basis = f"{count} x {kind} by the second in {region}{cheaper}; {NOT_KNOWN}"
        return CostEstimate(usd=None, basis=basis, unknown=("the price of an hour",))
    cited = f"prices of {region}{cheaper}; billed per second, excluding disks and storage; {rate.cited}"
    return by_time(
        request, f"{count} x {kind}", count * rate.usd, cited, as_of=rate.as_of, epochs=epochs, limit_s=seconds,
        billed_after_s=kept_s, time_limit=time_limit,
    )  # fmt: skip


def usage(job: JobSnapshot) -> Usage:
    """The billed seconds or tokens that SageMaker reports for a job that has ended.

    Instances that are kept for the next job count with their whole time, until SageMaker reports what it bills.
    """
    tokens, seconds = job.raw.get("BillableTokenCount"), job.raw.get("BillableTimeInSeconds")
    if tokens is not None or seconds is not None:
        kept = (job.raw.get("ResourceConfig") or {}).get("KeepAlivePeriodInSeconds", 0)
        pool = job.raw.get("WarmPoolStatus")
        kept = 0 if pool is None else pool.get("ResourceRetainedBillableTimeInSeconds", kept)
        return Usage(tokens=tokens, seconds=seconds, seconds_after=kept)
    return Usage(note="SageMaker reports no billed time for this job")


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
