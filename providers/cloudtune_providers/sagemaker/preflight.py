"""Preflight checks of a SageMaker job: the account's checks, quotas, the hub's model. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import InvalidRequest
from cloudtune.optional import Check
from cloudtune_providers.aws.training_preflight import TrainingChecks, Wanted, wanted_by
from cloudtune_providers.sagemaker.capabilities import NAME
from cloudtune_providers.sagemaker.mlflow import APP, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import Plan
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.preflight import Outcome, Permission
    from cloudtune_providers.sagemaker.options import SageMakerOptions


class Preflight:
    """The checks of one account and region."""

    def __init__(self, clients: Clients, options: SageMakerOptions) -> None:
        self._clients = clients
        self._options = options
        self._training = TrainingChecks(clients, options, NAME)

    def checks(self, plan: Plan | None) -> Iterator[Check]:
        """Yield the checks, including those of a job's plan."""
        if self._options.compute == "local":
            yield Check(what="compute", verdict="good", detail="local test run: AWS is not contacted")
            return
        checks = self._training
        yield from checks.account_checks(self._also())
        if not checks.account:
            return
        if self._options.compute == "serverless":
            yield from self._serverless(plan)
            return
        kind = self._options.instance_type
        wanted = (
            wanted_by(plan) if plan else Wanted(kind, self._options.instances, self._options.spot) if kind else None
        )
        yield checks.quota(wanted)
        yield from checks.price(plan, wanted)

    def _also(self) -> Iterator[Permission]:
        if self._options.compute == "serverless":
            region = self._clients.region
            hub = f"arn:aws:sagemaker:{region}:aws:hub-content/{self._options.hub}/Model/x"
            yield "sagemaker:DescribeHubContent", hub

    def _serverless(self, plan: Plan | None) -> Iterator[Check]:
        look = self._training.look
        if plan is not None:
            recipe = plan.resolved.facts["recipe"]
            detail = f"{recipe['model']} {recipe['version']}, recipe {recipe['recipe']}"
            yield Check(what="model", verdict="good", detail=detail + (", terms accepted" if recipe["gated"] else ""))
        if self._options.package_group:
            yield look("package group", lambda: self._group(str(self._options.package_group)), needed=True)
        if self._options.mlflow:
            yield look("MLflow", lambda: self._mlflow(str(self._options.mlflow)))

    def _group(self, arn: str) -> Outcome:
        with self._clients.asking(f"model package group {arn}"):
            response = self._clients.client("sagemaker").describe_model_package_group(ModelPackageGroupName=arn)
        status = str(response["ModelPackageGroupStatus"])
        return ("good" if status == "Completed" else "denied"), f"{response['ModelPackageGroupName']}: {status}"

    def _mlflow(self, arn: str) -> Outcome:
        """Check the MLflow resource: a stopped server or a deleted app does not accept metrics."""
        client, name = self._clients.client("sagemaker"), arn.rpartition("/")[2]
        with self._clients.asking(f"MLflow {name}", missing=InvalidRequest):
            if kind_of(arn) == APP:
                status = str(client.describe_mlflow_app(Arn=arn)["Status"])
                takes = status in ("Created", "Updated")
            else:
                response = client.describe_mlflow_tracking_server(TrackingServerName=name)
                status, takes = str(response["TrackingServerStatus"]), response.get("IsActive") == "Active"
        return ("good" if takes else "denied"), f"{name}: {status}" + ("" if takes else "; it accepts no metrics now")
