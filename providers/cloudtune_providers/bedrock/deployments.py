"""Deployments of custom models: on-demand, and provisioned throughput after agreeing to its price.

Create by name, await, switch to another model, list with cost, and delete.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from cloudtune.backend import Absent, Done, Found, Journal, Probe
from cloudtune.cost import CostEstimate
from cloudtune.document.validation import problems_of
from cloudtune.errors import (
    Conflict,
    InputError,
    InvalidRequest,
    JobNotFound,
    PolicyRefused,
    Problem,
    UnsupportedError,
)
from cloudtune.plan import DataReport, Plan, Resolved, Step, output_ref
from cloudtune_providers.aws.names import tag_list, tags_of
from cloudtune_providers.bedrock.calls import create_once
from cloudtune_providers.bedrock.deployment_reader import PROVISIONED, DeploymentReader
from cloudtune_providers.bedrock.options import BedrockDeployment
from cloudtune_providers.bedrock.responses import NAME, is_registered

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.state import Deployment, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.bedrock.options import BedrockOptions

# docs.aws.amazon.com/bedrock/latest/userguide/deploy-custom-model-on-demand.html, seen 2026-11-21.
ON_DEMAND = ("amazon.nova-", "meta.llama3-3-70b-")


class Deployments:
    """The deployments of one account and region."""

    def __init__(self, clients: Clients, options: BedrockOptions, catalog: Catalog) -> None:
        self._clients = clients
        self._options = options
        self._catalog = catalog
        self._reader = DeploymentReader(clients, catalog)

    @property
    def _bedrock(self) -> Any:
        return self._clients.client(NAME)

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, options: dict[str, Any]) -> Plan:
        """Return steps that deploy the model and wait for it. Raises PolicyRefused without agreement to the price."""
        try:
            deployment = BedrockDeployment.model_validate(options)
        except ValidationError as error:
            found = problems_of(error, model=BedrockDeployment, values=options, place=lambda path: (None, None))
            raise InputError(found) from error
        self._refuse(model, deployment)
        name = deployment.name or deployment_name(model.id)
        token = token_of("deploy", model.scope, name, model.id, deployment.model_dump_json())
        request = self._request(model, deployment, name, token)
        steps = (
            Step(id="deploy", kind="call", title=f"deploy {model.id} as {name}", request=request, once="atomic",
                 token=token),
            Step(id="ready", kind="await", title=f"wait until {name} is ready", limit_s=self._options.deploy_limit,
                 request={"call": "get", "name": output_ref("deploy", "name"), "model": model.id}),
        )  # fmt: skip
        warnings, cost = self._advice(model, deployment), self._cost(model, deployment)
        return self._plan("deploy", request["name"], model.scope, token, steps, warnings, cost)

    def _request(self, model: TunedModel, deployment: BedrockDeployment, name: str, token: str) -> dict[str, Any]:
        tags = tag_list(tags_of(token, name, self._options.tags))
        if deployment.update:
            body: dict[str, Any] = {"customModelDeploymentIdentifier": name, "modelArn": model.id}
            return {"call": "bedrock.update_custom_model_deployment", "name": name, "model": model.id, "body": body}
        if deployment.kind == "on_demand":
            body = {"modelDeploymentName": name, "modelArn": model.id, "tags": tags}
            return {"call": "bedrock.create_custom_model_deployment", "name": name, "model": model.id, "body": body}
        body = {"provisionedModelName": name, "modelId": model.id, "modelUnits": deployment.units, "tags": tags}
        if deployment.commitment != "none":
            body["commitmentDuration"] = deployment.commitment
        return {"call": "bedrock.create_provisioned_model_throughput", "name": f"{PROVISIONED}{name}",
                "model": model.id, "body": body}  # fmt: skip

    def _refuse(self, model: TunedModel, deployment: BedrockDeployment) -> None:
        if not model.needs_deploy:
            raise UnsupportedError(f"{model.id} requires no deployment")
        if deployment.update and not deployment.name:
            raise InputError([Problem(code="no_name", field="name", message="name the deployment to update",
                                      fix="set name; run `cloudtune deployments` to list deployments")])  # fmt: skip
        if deployment.kind == "on_demand" and (why := _no_on_demand(model)):
            fix = "set kind=provisioned, which is billed by the hour, and agree=true"
            raise UnsupportedError([Problem(code="no_on_demand", field="kind", message=why, fix=fix)])
        if deployment.kind == "provisioned" and not deployment.agree:
            cost = self._cost(model, deployment)
            raise PolicyRefused(
                f"provisioned throughput of {deployment.units} units costs {cost.basis if cost else 'an hourly price'}",
                hint="to confirm, set agree=true (--option agree=true)",
            )

    def _advice(self, model: TunedModel, deployment: BedrockDeployment) -> tuple[Problem, ...]:
        if deployment.kind == "on_demand" and is_registered(model.raw):
            message = "AWS's documentation disagrees on on-demand inference for SageMaker models; Nova's allows it"
            fix = "if it is rejected, set kind=provisioned, which is billed by the hour"
            return (Problem(code="perhaps_no_on_demand", severity="warning", field="kind", message=message, fix=fix),)
        if deployment.commitment == "none":
            return ()
        message = f"it cannot be deleted and is billed until the commitment of {deployment.commitment} ends"
        return (Problem(code="commitment", severity="warning", field="commitment", message=message),)

    def _cost(self, model: TunedModel, deployment: BedrockDeployment) -> CostEstimate | None:
        if deployment.kind == "provisioned":
            price = self._catalog.price("provisioned", model.base, tier=deployment.commitment)
            if price is None:
                return CostEstimate(
                    usd=None, basis="by the hour, even when idle; this model's price is not in the catalog"
                )
            text = f"{price.usd * deployment.units:g} USD per hour, even when idle, until it is deleted"
            return CostEstimate(usd=None, basis=f"{text} ({self._catalog.cite(price.source)})")
        storage = self._catalog.price("storage", model.base)
        given, output_price = self._catalog.price("input", model.base), self._catalog.price("output", model.base)
        by_token = (
            f"{given.usd:g} and {output_price.usd:g} USD per 1M tokens in and out"
            if given and output_price
            else "per token"
        )
        kept = f"; model storage {storage.usd:g} USD per {storage.per}" if storage else ""
        return CostEstimate(usd=None, basis=f"nothing while idle, {by_token}{kept}")

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return steps that delete it."""
        token = token_of("remove", deployment.scope, deployment.id, deployment.model)
        kind = "provisioned_model_throughput" if deployment.id.startswith(PROVISIONED) else "custom_model_deployment"
        request = {"call": f"bedrock.delete_{kind}", "name": deployment.id}
        step = Step(id="remove", kind="call", title=f"delete {deployment.id}", request=request, once="atomic")
        return self._plan("remove", deployment.id, deployment.scope, token, (step,), (), None)

    def _plan(
        self, purpose: Literal["deploy", "remove"], name: str, scope: str, token: str, steps: tuple[Step, ...],
        warnings: tuple[Problem, ...], cost: CostEstimate | None,
    ) -> Plan:  # fmt: skip
        if scope != (here := self._clients.scope()):
            raise InvalidRequest(f"{name} belongs to {scope}, but the settings select {here}")
        return Plan(
            purpose=purpose, name=name, backend=NAME, scope=scope, key=token, attempt=1, token=token, spec={},
            steps=steps, data=DataReport(splits={}, fingerprint=""), resolved=Resolved(scope=scope),
            warnings=warnings, cost=cost,
        )  # fmt: skip

    # -- acts ------------------------------------------------------------------------------------------------------

    def create(self, request: dict[str, Any], journal: Journal) -> dict[str, Any]:
        """Send the request. The token is specific to this attempt, so a deleted deployment can be created again."""
        call, body = request["call"].partition(".")[2], dict(request["body"])
        if not call.startswith("update_"):
            if "request_token" not in journal.notes:
                journal.note("request_token", uuid.uuid4().hex)
            body["clientRequestToken"] = journal.notes["request_token"]

        def send() -> dict[str, Any]:
            getattr(self._bedrock, call)(**body)
            return {"name": request["name"]}

        return create_once(self._clients, f"deployment {request['name']}", send, lambda: self.find(request))

    def find(self, request: dict[str, Any]) -> Found:
        """Return the deployment with that name. Raises Conflict if it serves another model."""
        there = self._reader.get(request["name"])
        call = request["call"].partition(".")[2]
        if call.startswith("delete_"):
            return Done(outputs={"name": request["name"]}) if there is None else Absent()
        if there is None:
            return Absent()
        if there.model == request["model"]:
            return Done(outputs={"name": request["name"]})
        if call.startswith("update_"):
            return Absent()
        raise Conflict(
            f"{request['name']!r} exists and serves {there.model}",
            hint="choose another name, or set update=true to serve this model instead",
        )

    def remove(self, request: dict[str, Any]) -> dict[str, Any]:
        """Delete it. Succeeds if it does not exist."""
        name, call = request["name"], request["call"].partition(".")[2]
        is_provisioned = name.startswith(PROVISIONED)
        key = "provisionedModelId" if is_provisioned else "customModelDeploymentIdentifier"
        try:
            with self._clients.asking(f"removal of {name}"):
                getattr(self._bedrock, call)(**{key: name.removeprefix(PROVISIONED)})
        except JobNotFound:
            pass
        except Conflict as error:
            if is_provisioned:
                error.hint = "provisioned throughput cannot be deleted before its commitment ends"
            raise
        return {"name": name}

    def probe(self, request: dict[str, Any]) -> Probe:
        """Whether it is ready, and serves that model."""
        there = self._reader.get(request["name"])
        if there is None:
            return Probe(state="failed", message="it no longer exists")
        update = there.raw.get("updateDetails") or {}
        if update.get("updateStatus") == "UpdateFailed" and there.model != request["model"]:
            return Probe(state="failed", message="the update failed")
        is_there = (
            there.state == "ready" and there.model == request["model"] and update.get("updateStatus") != "Updating"
        )
        state: Literal["ready", "failed", "pending"] = (
            "ready" if is_there else "failed" if there.state == "failed" else "pending"
        )
        message = str(there.raw.get("failureMessage") or there.native_state)
        return Probe(state=state, outputs={"name": request["name"]}, message=message)

    # -- reading ---------------------------------------------------------------------------------------------------

    def listed(self) -> list[Deployment]:
        """List the deployments."""
        return self._reader.listed()

    def serving(self, model: str) -> str:
        """The ARN of a deployment of that model, on demand before provisioned. Raises InvalidRequest."""
        for deployment in self.listed():
            if deployment.state == "ready" and deployment.model == model:
                return str(deployment.raw.get("customModelDeploymentArn") or deployment.raw["provisionedModelArn"])
        raise InvalidRequest(f"{model} is not deployed", hint="deploy it first: cloudtune deploy JOB")


def _no_on_demand(model: TunedModel) -> str | None:
    """The reason why it can be deployed with provisioned throughput only, or None.

    Of models trained in SageMaker, adapters can be deployed on demand, full weights cannot
    (docs.aws.amazon.com/nova/latest/userguide/customization.html, seen 2026-11-21); the kind is not always known.
    """
    if is_registered(model.raw):
        return "full weights from SageMaker do not support on-demand inference" if model.adapter == "full" else None
    if ":custom-model/" in model.base or model.base.startswith(ON_DEMAND):
        return None
    return f"models tuned from {model.base} do not support on-demand inference"


def deployment_name(model: str) -> str:
    """A deterministic name for the deployment of that model."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", model.rpartition("/")[2])[-40:].strip("-")
    return f"ct-{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def token_of(*parts: str) -> str:
    """32 hex digits of the values' hash."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
