"""Preflight checks of a SageMaker training job: the account's checks, and instance quotas. Read-only.

There is one quota for each instance type and use, found by its name: "ml.g5.2xlarge for training job usage",
"... for spot training job usage", "... for training warm pool usage"
(docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html and regions-quotas.html, seen 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune_providers.aws.preflight import AccountChecks
from cloudtune_providers.aws.price_list import PriceList
from cloudtune_providers.aws.training_policies import LOGS, READ_AND_WRITE, SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cloudtune.optional import Check
    from cloudtune.plan import Plan
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.options import AwsOptions
    from cloudtune_providers.aws.preflight import Outcome, Permission

TRAINING = "for training job usage"
_SPOT = "for spot training job usage"
_WARM = "for training warm pool usage"
_DEFAULTS = "list_aws_default_service_quotas"
_CALLS = ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "AddTags")
_MOST_NAMED = 8
_SAME_USD = 0.011
_ASK_FOR_MORE = "request an increase: AWS console, Service Quotas, Amazon SageMaker"


class Wanted(NamedTuple):
    """The resources in a job's request."""

    instance_type: str
    instances: int = 1
    spot: bool = False
    warm: bool = False

    @property
    def quotas(self) -> tuple[str, ...]:
        """Names of the quotas that apply to it."""
        uses = [_SPOT if self.spot else TRAINING, *([_WARM] if self.warm else [])]
        return tuple(f"{self.instance_type} {use}" for use in uses)


def wanted_by(plan: Plan) -> Wanted | None:
    """The resources in the plan's CreateTrainingJob; None if it has no instances."""
    body = plan.steps[-1].request.get("body") or {}
    resources = body.get("ResourceConfig")
    if not resources:
        return None
    return Wanted(
        instance_type=str(resources["InstanceType"]), instances=int(resources.get("InstanceCount") or 1),
        spot=bool(body.get("EnableManagedSpotTraining")), warm=bool(resources.get("KeepAlivePeriodInSeconds")),
    )  # fmt: skip


class TrainingChecks(AccountChecks):
    """The checks that are shared by back ends with training jobs."""

    def __init__(self, clients: Clients, options: AwsOptions, backend: str) -> None:
        super().__init__(clients, options, backend, SERVICE, {"cloudwatch:namespace": LOGS})

    def account_checks(self, also: Iterable[Permission] = ()) -> Iterator[Check]:
        """Identity, region, permissions; stops without an identity. ``also`` has the caller's further actions."""
        yield self.look("identity", self.identity, needed=True)
        if not self.account:
            return
        yield self.look("region", self.region)
        yield self.look("bucket", self.bucket, needed=True)
        yield self.look("role", self.role)
        yield self.look("role's policy", lambda: self.role_may(self._role_permissions()))
        yield self.look("your permissions", lambda: self.caller_may([*self._caller_permissions(), *also]))

    def _role_permissions(self) -> Iterator[Permission]:
        for action in READ_AND_WRITE:
            yield action, self.objects()
        yield "s3:ListBucket", f"arn:aws:s3:::{self.options.bucket}"
        region, account = self.clients.region, self.account
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            yield action, f"arn:aws:logs:{region}:{account}:log-group:{LOGS}:log-stream:x"
        yield "cloudwatch:PutMetricData", "*"
        yield "ecr:GetAuthorizationToken", "*"

    def _caller_permissions(self) -> Iterator[Permission]:
        region, account = self.clients.region, self.account
        for call in _CALLS:
            yield f"sagemaker:{call}", f"arn:aws:sagemaker:{region}:{account}:training-job/x"
        yield "logs:FilterLogEvents", f"arn:aws:logs:{region}:{account}:log-group:{LOGS}"
        if self.options.bucket:
            for action in READ_AND_WRITE:
                yield action, self.objects()

    # -- quotas ----------------------------------------------------------------------------------------------------

    def quota(self, wanted: Wanted | None) -> Check:
        """Whether that many instances can run at once; without a job, which types can."""
        if wanted is None:
            return self.look("quota", self._any_quota, hinders=False)
        return self.look("quota", lambda: self._quota(wanted), hinders=False)

    def price(self, plan: Plan | None, wanted: Wanted | None) -> Iterator[Check]:
        """Compare AWS's current price list with the plan's prices."""
        if plan is not None and wanted is not None:
            yield self.look("price", lambda: self._price(plan, wanted), hinders=False)

    def _price(self, plan: Plan, wanted: Wanted) -> Outcome:
        kind, region = wanted.instance_type, self.clients.region
        found = PriceList(self.clients).hour("training", kind, region)
        if found is None:
            return "cannot_verify", f"the price list has no {kind} for training in {region}"
        usd, since = found
        body = plan.steps[-1].request["body"]
        hours = body["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600
        most = round(hours * wanted.instances * usd, 2)
        text = f"{usd:g} USD per hour since {since}: at most {most:,.2f} USD"
        text += f", in {hours:g} h on {wanted.instances} x {kind}"
        counted = plan.cost.at_most_usd if plan.cost else None
        if counted is not None and abs(counted - most) > _SAME_USD:
            return "warning", f"{text}; the plan assumed {counted:,.2f} USD"
        return "good", text

    def _quota(self, wanted: Wanted) -> Outcome:
        parts: list[str] = []
        for name in wanted.quotas:
            found = self._named(name)
            if found is None:
                return "cannot_verify", f"{name}: no such quota in {self.clients.region}"
            value = float(found["Value"])
            if value < wanted.instances:
                code = found.get("QuotaCode")
                return "denied", f"{name}: {value:g}, but {wanted.instances} are needed; {_ASK_FOR_MORE}, {code}"
            parts.append(f"{name}: {value:g}")
        return "good", f"{'; '.join(parts)}, for all concurrent jobs"

    def _named(self, name: str) -> Mapping[str, Any] | None:
        """The account's own value, or AWS's default if none is set."""
        for call in ("list_service_quotas", _DEFAULTS):
            for quota in self.quotas("sagemaker", call):
                if str(quota.get("QuotaName")) == name and "Value" in quota:
                    return quota
        return None

    def _any_quota(self) -> Outcome:
        found = self._training_quotas("list_service_quotas")
        if not any(value >= 1 for value in found.values()):
            found = self._training_quotas(_DEFAULTS) | found
        if not found:
            return "cannot_verify", "no quota for training instances is listed"
        usable = sorted((kind for kind, value in found.items() if value >= 1), key=_accelerated_first)
        if not usable:
            return "denied", f"all training quotas are 0; {_ASK_FOR_MORE}"
        named = ", ".join(f"{kind} ({found[kind]:g})" for kind in usable[:_MOST_NAMED])
        more = f" and {len(usable) - _MOST_NAMED} more" if len(usable) > _MOST_NAMED else ""
        return "good", f"quota available for {named}{more}"

    def _training_quotas(self, call: str) -> dict[str, float]:
        """Instance type -> how many can train at once."""
        found = ((str(quota.get("QuotaName", "")), quota) for quota in self.quotas("sagemaker", call))
        return {
            name.removesuffix(f" {TRAINING}"): float(quota["Value"])
            for name, quota in found
            if name.startswith("ml.") and name.endswith(f" {TRAINING}") and "Value" in quota
        }


def _accelerated_first(kind: str) -> tuple[bool, str]:
    return not kind.startswith(("ml.g", "ml.p")), kind
