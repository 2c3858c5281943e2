"""Endpoints of tuned JumpStart models: planned from the model's document, called in the format used in training."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cloudtune.document.validation import problems_of
from cloudtune.errors import CloudtuneError, InputError, InvalidRequest, Problem, UnsupportedError
from cloudtune.prompts import messages_of
from cloudtune_providers.aws import host_plans, hourly
from cloudtune_providers.aws.host_plans import Aim, Part
from cloudtune_providers.aws.hosts import where_of
from cloudtune_providers.aws.instances import accelerators
from cloudtune_providers.aws.names import short
from cloudtune_providers.aws.scaling import Copies
from cloudtune_providers.aws.streams import in_pieces
from cloudtune_providers.jumpstart import layouts, results
from cloudtune_providers.jumpstart.document import Document
from cloudtune_providers.jumpstart.options import JumpStartDeployment
from cloudtune_providers.jumpstart.requests import VERSION_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan
    from cloudtune.state import Deployment, Generation, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.aws.hosts import Hosts
    from cloudtune_providers.jumpstart.hub import Hub
    from cloudtune_providers.jumpstart.options import JumpStartOptions

NAME = layouts.NAME


class Hosting:
    """The endpoints of one account and region."""

    def __init__(self, clients: Clients, options: JumpStartOptions, hub: Hub, hosts: Hosts) -> None:
        self._clients = clients
        self._options = options
        self._hub = hub
        self._hosts = hosts

    def plan_deploy(self, model: TunedModel, given: dict[str, Any]) -> Plan:
        """Return steps for model, configuration and endpoint, and wait. Reads the model's document."""
        try:
            deployment = JumpStartDeployment.model_validate(given)
        except ValidationError as error:
            found = problems_of(error, model=JumpStartDeployment, values=given, place=lambda path: (None, None))
            raise InputError(found) from error
        document = Document(self._hub.facts(model.base, _version(model))["document"])
        kind = deployment.instance_type or document["DefaultInferenceInstanceType"] or ""
        offered = document["SupportedInferenceInstanceTypes"] or []
        if not kind or (offered and kind not in offered):
            raise UnsupportedError([Problem(
                code="instance", field="instance_type", message=f"{model.base} cannot run on {kind or 'nothing'}",
                fix=f"choose one of {', '.join(offered)}",
            )])  # fmt: skip
        what = deployment.model_dump_json(exclude={"name"})
        token = hashlib.sha256(f"deploy\n{model.scope}\n{model.id}\n{what}".encode()).hexdigest()[:32]
        aim = Aim(
            NAME,
            model.scope,
            deployment.name or short(model.id, token),
            model.id,
            token,
            self._options.tags,
            self._options.deploy_limit,
            warnings=(_costs(kind, deployment),),
            cost=hourly.hosting(
                kind, deployment.instances, hourly.region_of(model.scope), sleeps=deployment.min_copies == 0
            ),
        )
        config: dict[str, Any] = {"ProductionVariants": [_variant(aim.name, kind, deployment)]}
        bodies = {
            "model": self._model(model, document, kind), "config": config, "endpoint": {"EndpointConfigName": aim.name},
        }  # fmt: skip
        if deployment.min_copies is None:
            return host_plans.alone(aim, bodies)
        config["ExecutionRoleArn"] = self._options.role_arn
        copies = Copies(
            deployment.min_copies, deployment.instances, deployment.requests_per_minute, deployment.cooldown
        )
        part = Part(
            {"ComputeResourceRequirements": _needs(kind, deployment)}, aim.name, copies=max(1, deployment.min_copies)
        )
        return host_plans.scaled(aim, bodies, part, copies)

    def _model(self, model: TunedModel, document: Document, kind: str) -> dict[str, Any]:
        container = {
            "Image": document.image(kind, "Hosting"), "ModelDataUrl": model.uri,
            "Environment": document.serving_environment(),
        }  # fmt: skip
        body: dict[str, Any] = {"ExecutionRoleArn": self._options.role_arn, "PrimaryContainer": container}
        if document["InferenceEnableNetworkIsolation"]:
            body["EnableNetworkIsolation"] = True
        options = self._options
        if options.subnets:
            body["VpcConfig"] = {"Subnets": list(options.subnets), "SecurityGroupIds": list(options.security_groups)}
        return body

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Return steps that delete endpoint, configuration and model."""
        what = "\n".join(("remove", deployment.scope, deployment.id, deployment.model, str(deployment.created_at)))
        return self._hosts.plan_remove(deployment, hashlib.sha256(what.encode()).hexdigest()[:32])

    def generate(self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions) -> Iterator[Generation]:
        """One answer for each prompt, first in chunks if requested. The base model needs a separate endpoint."""
        template = None
        if options.base:
            if not self._options.base_endpoint:
                raise InvalidRequest(
                    f"the base model {model.base} requires its own endpoint",
                    hint=f"deploy it in SageMaker, and set the endpoint as backends.{NAME}.base_endpoint",
                )
            where = {"EndpointName": self._options.base_endpoint}
        else:
            standing = self._hosts.serving(model.id, model.scope)
            if standing is None:
                hint = "deploy it: cloudtune deploy JOB"
                raise InvalidRequest(f"{model.id} is not deployed", hint=hint)
            where, template = where_of(standing), self._template(model)
        for prompt in prompts:
            messages = messages_of(prompt)
            body = results.asking(messages, options, template)
            if options.stream:
                yield from in_pieces(self._clients, where, body | {"stream": True}, where["EndpointName"])
            else:
                yield self._one(where, body)

    def _one(self, where: Mapping[str, str], body: Mapping[str, Any]) -> Generation:
        endpoint = where["EndpointName"]
        with self._clients.asking(f"endpoint {endpoint}", missing=InvalidRequest):
            response = self._clients.client("sagemaker-runtime").invoke_endpoint(
                **where, ContentType="application/json", Accept="application/json", Body=json.dumps(body).encode()
            )
            content = response["Body"].read()
        return results.answer(content, endpoint)

    def _template(self, model: TunedModel) -> dict[str, str] | None:
        """Return the ``template.json`` of the training, if any, or the default if it no longer exists."""
        given = model.raw.get("HyperParameters") or {}
        if given.get("instruction_tuned") != "True":
            return None
        for channel in model.raw.get("InputDataConfig") or ():
            uri = str(channel["DataSource"]["S3DataSource"]["S3Uri"])
            if channel["ChannelName"] == layouts.CHANNELS["train"]:
                bucket, _, folder = uri.removeprefix("s3://").partition("/")
                try:
                    with self._clients.asking(f"template of {model.id}"):
                        held = self._clients.client("s3").get_object(Bucket=bucket, Key=f"{folder}template.json")
                        return dict(json.loads(held["Body"].read()))
                except (CloudtuneError, ValueError):
                    break
        return dict(layouts.TEMPLATE)


def _version(model: TunedModel) -> str | None:
    version = (model.raw.get("Environment") or {}).get(VERSION_VARIABLE)
    return str(version) if version else None


def _variant(name: str, kind: str, deployment: JumpStartDeployment) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": "AllTraffic"}
    if deployment.min_copies is None:
        return {**variant, "ModelName": name, "InstanceType": kind, "InitialInstanceCount": deployment.instances}
    scaling = {"Status": "ENABLED", "MinInstanceCount": deployment.min_copies, "MaxInstanceCount": deployment.instances}
    return {**variant, "InstanceType": kind, "InitialInstanceCount": max(1, deployment.min_copies),
            "ManagedInstanceScaling": scaling,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}}  # fmt: skip


def _needs(kind: str, deployment: JumpStartDeployment) -> dict[str, Any]:
    gpus = deployment.accelerators if deployment.accelerators is not None else accelerators(kind) or 0
    needs: dict[str, Any] = {"MinMemoryRequiredInMb": deployment.memory_mb}
    return needs | ({"NumberOfAcceleratorDevicesRequired": gpus} if gpus else {})


def _costs(kind: str, deployment: JumpStartDeployment) -> Problem:
    what = f"{deployment.instances} x {kind}"
    message = f"{what} are billed by the hour, even when idle, until they are deleted"
    if deployment.min_copies == 0:
        message = f"up to {what} are billed by the hour while in use, and for about 25 minutes after"
    return Problem(code="hosting", severity="warning", field="instance_type", message=message,
                   fix="to list them: cloudtune deployments")  # fmt: skip
