"""The hourly cost of instances: from a dated price, or unknown."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from cloudtune.catalog import load
from cloudtune.cost import CostEstimate, Measured
from cloudtune.plan import DataReport, PlanRequest, Resolved, SplitInfo
from cloudtune.pricing import actual
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef, JobSnapshot, JobState
from cloudtune_providers.aws import hourly
from cloudtune_providers.aws.instances import accelerators


def training(kind: str, count: int, seconds: float, region: str, *, spot: bool = False, **more: Any) -> CostEstimate:
    split = SplitInfo(rows=1000, bytes=2_000_000, sha256="0" * 64, kind="chat")
    request = PlanRequest(
        spec=JobSpec.model_validate({"model": "m", "data": {"train": "rows.jsonl"}}),
        data=DataReport(splits={"train": split}, fingerprint=""), resolved=Resolved(scope=f"123456789012/{region}"),
        key="k", attempt=1, token="t", measured=more.get("measured"),
    )  # fmt: skip
    return hourly.training(
        kind,
        count,
        seconds,
        request,
        spot=spot,
        epochs=more.get("epochs"),
        kept_s=more.get("kept_s", 0.0),
        time_limit="keeps_model",
    )


def test_a_job_costs_its_longest_time_at_the_most() -> None:
    cost = training("ml.g5.12xlarge", 2, 5400, "us-west-2")
    assert (cost.usd, cost.at_least_usd, cost.at_most_usd) == (None, None, 21.27)
    assert "2 x ml.g5.12xlarge at 14.18 USD per hour" in cost.basis
    assert "at most 1.5 h" in cost.basis
    assert "us-west-2" in cost.basis
    assert "as reported" in cost.basis
    assert "spot" not in cost.basis
    assert cost.prices_as_of == "2026-11-21"


def test_measured_runs_by_hand() -> None:
    # 2 MB x 3 epochs = 6 MB; at 300 s for 1 MB, 1800 s = 0.5 h; two instances of 7.09 USD: 0.5 x 14.18 = 7.09 USD.
    measured = Measured(least_s=270, median_s=300, most_s=360, jobs=4)
    cost = training("ml.g5.12xlarge", 2, 5400, "us-west-2", measured=measured, epochs=3.0)
    assert (cost.usd, cost.at_least_usd, cost.at_most_usd) == (7.09, 6.381, 21.27)
    assert "about 0.5 h, as measured in 4 earlier jobs" in cost.basis


def test_the_most_includes_instances_that_are_kept() -> None:
    # 1 h at most, and 0.5 h kept: 1.5 h x 1.515 USD = 2.2725 USD; 1200 s billed and 600 s kept: 0.5 h = 0.7575 USD.
    cost = training("ml.g5.2xlarge", 1, 3600, "us-east-1", kept_s=1800)
    assert (cost.at_most_usd, cost.billed_after_s) == (2.2725, 1800)
    assert "at most 1 h, and up to 0.5 h that the machines are kept after it" in cost.basis
    ref = JobRef("sagemaker", "123456789012/us-east-1", "j")
    raw = {"BillableTimeInSeconds": 1200, "ResourceConfig": {"KeepAlivePeriodInSeconds": 1800}}
    for pool, usd in [
        (None, 0.505), ({"Status": "Available"}, 1.2625),
        ({"Status": "Reused", "ResourceRetainedBillableTimeInSeconds": 600}, 0.7575),
    ]:  # fmt: skip
        shown = raw if pool is None else raw | {"WarmPoolStatus": pool}
        job = JobSnapshot(ref=ref, state=JobState.SUCCEEDED, native_state="", raw=shown)
        assert actual(cost, hourly.usage(job), job).usd == usd


def test_spot_is_told_and_counted_as_if_it_were_not() -> None:
    plain, spot = (training("ml.g5.2xlarge", 1, 3600, "us-east-1", spot=spot) for spot in (False, True))
    assert plain.at_most_usd == spot.at_most_usd == 1.515
    assert plain.prices_as_of == "2026-08-20"
    assert "less on spot instances" in spot.basis


@pytest.mark.parametrize(
    ("kind", "region"), [("ml.g5.2xlarge", "eu-west-1"), ("ml.p5.48xlarge", "us-west-2"), ("ml.m5.large", "us-west-2")]
)
def test_a_price_that_nobody_told_is_not_guessed(kind: str, region: str) -> None:
    cost = training(kind, 1, 3600, region)
    assert (cost.usd, cost.at_most_usd, cost.prices_as_of) == (None, None, None)
    assert cost.unknown == ("the price of an hour",)
    assert hourly.NOT_KNOWN in cost.basis


def test_endpoints_have_prices_of_their_own() -> None:
    price = hourly.hosting_prices("us-east-1")
    assert (price("ml.m5.xlarge"), price("ml.p5.48xlarge"), price("")) == (0.23, None, None)
    reported = hourly.hosting("ml.m5.xlarge", 3, "us-east-1", sleeps=False)
    assert "3 x ml.m5.xlarge by the hour even when idle, until deleted: 0.69 USD per hour" in reported.basis
    assert "prices of 2026-09-28" in reported.basis
    assert "up to 1 x" in hourly.hosting("ml.m5.xlarge", 1, "us-east-1", sleeps=True).basis
    assert hourly.NOT_KNOWN in hourly.hosting("ml.m5.xlarge", 1, "eu-west-1", sleeps=False).basis


def test_every_figure_is_of_a_type_and_positive() -> None:
    seen = set()
    for rates in load("sagemaker").rates:
        for kind, usd in rates.usd.items():
            assert 0 < usd < 200
            assert (rates.use, rates.region, kind) not in seen, "a second figure would never be found"
            seen.add((rates.use, rates.region, kind))
            assert accelerators(kind) is not None or kind.startswith("ml.m5.")
        assert rates.as_of is None or rates.as_of >= date(2025, 1, 1)
    assert len(seen) >= 40


def test_the_region_is_in_the_scope() -> None:
    assert hourly.region_of("123456789012/eu-west-1") == "eu-west-1"
    assert hourly.region_of("123456789012/us-east-1@127.0.0.1:4566") == "us-east-1"
