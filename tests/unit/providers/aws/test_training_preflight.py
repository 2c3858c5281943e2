"""What is looked at before a training job: what simulated requests carry, and quotas by their names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber

from cloudtune.cost import CostEstimate
from cloudtune.plan import DataReport, Plan, Resolved, Step
from cloudtune_providers.aws.clients import Clients
from cloudtune_providers.aws.options import AwsOptions
from cloudtune_providers.aws.training_preflight import TrainingChecks, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = "arn:aws:iam::123456789012:role/cloudtune"
CALLER = "arn:aws:iam::123456789012:user/me"
_SERVICES = ("sts", "iam", "service-quotas", "pricing")
G5 = "ml.g5.2xlarge"


def plan_of(at_most: float | None) -> Plan:
    """Half an hour on two instances."""
    body = {"StoppingCondition": {"MaxRuntimeInSeconds": 1800}}
    step = Step(id="create", kind="call", title="create", request={"body": body}, makes_job=True)
    return Plan(
        name="a", backend="sagemaker", scope="1/eu-west-1", key="k", attempt=1, token="t", spec={}, steps=(step,),
        data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope="1/eu-west-1"),
        cost=None if at_most is None else CostEstimate(usd=None, basis="so", at_most_usd=at_most),
    )  # fmt: skip


class Permission:
    """Clients that answer from a script and keep what they were asked."""

    def __init__(self) -> None:
        secrets = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "eu-west-1"}
        self.clients = {name: boto3.client(name, **secrets) for name in _SERVICES}  # type: ignore[call-overload]
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        self.requests: list[dict[str, Any]] = []
        for client, stub in zip(self.clients.values(), self.stubs.values(), strict=True):
            client.meta.events.register("provide-client-params", self._keep)
            stub.activate()
        self.stubs["sts"].add_response("get_caller_identity", {"Account": "123456789012", "Arn": CALLER})
        options = AwsOptions(bucket="rows", role_arn=ROLE)
        self.checks = TrainingChecks(Clients(options, self.clients.__getitem__), options, "sagemaker")
        self.checks.identity()

    def _keep(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name == "SimulatePrincipalPolicy":
            self.requests.append(params)

    def quotas(self, *values: tuple[str, float], more: str = "") -> None:
        listed = [{"QuotaName": name, "QuotaCode": "L-1", "Value": value} for name, value in values]
        page: dict[str, Any] = {"Quotas": listed} | ({"NextToken": more} if more else {})
        self.stubs["service-quotas"].add_response("list_service_quotas", page)

    def defaults(self, *values: tuple[str, float]) -> None:
        listed = [{"QuotaName": name, "QuotaCode": "L-2", "Value": value} for name, value in values]
        self.stubs["service-quotas"].add_response("list_aws_default_service_quotas", {"Quotas": listed})

    def prices(self, *products: tuple[str, float], more: str = "") -> None:
        listed = [
            json.dumps({
                "product": {"attributes": {"component": component}},
                "terms": {"OnDemand": {"a": {
                    "effectiveDate": "2026-11-01T00:00:00Z",
                    "priceDimensions": {"b": {"unit": "Hrs", "pricePerUnit": {"USD": f"{usd:.6f}"}}},
                }}},
            })
            for component, usd in products
        ]  # fmt: skip
        page: dict[str, Any] = {"PriceList": listed} | ({"NextToken": more} if more else {})
        self.stubs["pricing"].add_response("get_products", page)

    def price(self, at_most: float | None) -> tuple[str, str]:
        (check,) = self.checks.price(plan_of(at_most), Wanted(G5, 2))
        return check.verdict, check.detail

    def quota(self, wanted: Wanted | None) -> tuple[str, str]:
        check = self.checks.quota(wanted)
        return check.verdict, check.detail


@pytest.fixture
def asked() -> Iterator[Permission]:
    asked = Permission()
    yield asked
    for client in asked.clients.values():
        client.close()


def test_the_simulator_is_told_what_conditions_look_at(asked: Permission) -> None:
    """Otherwise it would deny what our own documents allow: they pass the role to one service, in one region."""
    for _ in range(2):
        result = {"EvalActionName": "a:B", "EvalDecision": "allowed"}
        asked.stubs["iam"].add_response("simulate_principal_policy", {"EvaluationResults": [result]})
    verdict, _ = asked.checks.caller_may([("sagemaker:CreateTrainingJob", "*"), ("sagemaker:AddTags", "*")])
    assert verdict == "good"
    first, second = asked.requests
    assert first["ActionNames"] == ["sagemaker:CreateTrainingJob", "sagemaker:AddTags"]
    assert (second["ActionNames"], second["ResourceArns"]) == (["iam:PassRole"], [ROLE])
    reported = {entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in second["ContextEntries"]}
    assert reported["iam:PassedToService"] == ["sagemaker.amazonaws.com"]
    assert reported["aws:RequestedRegion"] == ["eu-west-1"]
    assert reported["cloudwatch:namespace"] == ["/aws/sagemaker/TrainingJobs"]
    assert reported["s3:prefix"] == ["cloudtune/x"]


def test_a_quota_is_found_on_a_later_page(asked: Permission) -> None:
    asked.quotas((f"{G5} for endpoint usage", 0.0), more="2")
    asked.quotas((f"{G5} for training job usage", 3.0))
    assert asked.quota(Wanted(G5, 2)) == ("good", f"{G5} for training job usage: 3, for all concurrent jobs")


def test_too_small_a_quota_denies_and_says_where_to_ask(asked: Permission) -> None:
    asked.quotas((f"{G5} for training job usage", 1.0))
    verdict, detail = asked.quota(Wanted(G5, 2))
    assert verdict == "denied"
    assert "1, but 2 are needed" in detail
    assert "Service Quotas" in detail
    assert "L-1" in detail


def test_a_quota_that_was_never_set_is_awss_own(asked: Permission) -> None:
    asked.quotas(("ml.m5.xlarge for training job usage", 4.0))
    asked.defaults((f"{G5} for training job usage", 0.0))
    verdict, detail = asked.quota(Wanted(G5))
    assert (verdict, "L-2" in detail) == ("denied", True)


def test_spot_and_warm_pools_have_quotas_of_their_own(asked: Permission) -> None:
    every = ((f"{G5} for spot training job usage", 5.0), (f"{G5} for training warm pool usage", 0.0))
    asked.quotas(*every)
    asked.quotas(*every)
    verdict, detail = asked.quota(Wanted(G5, spot=True, warm=True))
    assert verdict == "denied"
    assert "warm pool usage: 0" in detail


def test_a_quota_that_is_not_listed_cannot_be_verified(asked: Permission) -> None:
    asked.quotas()
    asked.defaults()
    assert asked.quota(Wanted(G5))[0] == "cannot_verify"
    asked.stubs["service-quotas"].add_client_error("list_service_quotas", "AccessDeniedException", "no", 403)
    assert asked.quota(Wanted(G5))[0] == "cannot_verify"


def test_without_a_job_the_types_that_may_train_are_named(asked: Permission) -> None:
    asked.quotas(
        ("ml.m5.xlarge for training job usage", 9.0), (f"{G5} for training job usage", 2.0),
        (f"{G5} for spot training job usage", 7.0), ("ml.p5.48xlarge for training job usage", 0.0),
    )  # fmt: skip
    assert asked.quota(None) == ("good", f"quota available for {G5} (2), ml.m5.xlarge (9)")
    asked.quotas((f"{G5} for training job usage", 0.0))
    asked.defaults((f"{G5} for training job usage", 9.0), ("ml.m5.xlarge for training job usage", 0.0))
    assert asked.quota(None)[0] == "denied", "the account's own value wins over AWS's"
    asked.quotas((f"{G5} for training job usage", 0.0))
    asked.defaults(("ml.m5.xlarge for training job usage", 4.0))
    assert asked.quota(None) == ("good", "quota available for ml.m5.xlarge (4)")
    asked.quotas()
    asked.defaults()
    assert asked.quota(None)[0] == "cannot_verify"


def test_the_price_list_is_held_against_the_plan(asked: Permission) -> None:
    asked.prices(("Hosting", 9.0), more="2")
    asked.prices(("SpotTraining", 3.0), ("Training", 1.5))
    verdict, detail = asked.price(1.5)
    assert (verdict, detail.startswith("1.5 USD per hour since 2026-11-01: at most 1.50 USD")) == ("good", True)
    asked.prices(("Training", 2.0))
    verdict, detail = asked.price(1.5)
    assert (verdict, "the plan assumed 1.50 USD" in detail) == ("warning", True)
    asked.prices(("Training", 2.0))
    assert asked.price(None)[0] == "good", "where the plan had no figure, the list's is told"


def test_a_price_that_is_not_listed_or_may_not_be_read_hinders_nothing(asked: Permission) -> None:
    asked.prices(("Hosting", 1.0))
    assert asked.price(None)[0] == "cannot_verify"
    asked.stubs["pricing"].add_client_error("get_products", "AccessDeniedException", "no", 403)
    assert asked.price(None)[0] == "cannot_verify"
