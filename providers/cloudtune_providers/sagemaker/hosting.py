"""Endpoints of tuned models: planned from the model's job, called in the format of the trainer's server."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cloudtune.cost import CostEstimate
from cloudtune.document.validation import problems_of
from cloudtune.errors import InputError, InvalidRequest, Problem, UnsupportedError
from cloudtune_providers.aws import host_plans, hourly
from cloudtune_providers.aws.host_plans import Aim, Part
from cloudtune_providers.aws.hosts import Hosts, where_of
from cloudtune_providers.aws.names import short
from cloudtune_providers.aws.scaling import Copies
from cloudtune_providers.sagemaker import adapters, images, inference, instances
from cloudtune_providers.sagemaker.capabilities import NAME
from cloudtune_providers.sagemaker.options import SageMakerDeployment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune.optional import GenerateOptions, Prompt
    from cloudtune.plan import Plan
    from cloudtune.state import Deployment, Generation, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.sagemaker.options import SageMakerOptions

_CHANNEL = "base"
_MOUNTED = "/opt/ml/additional-model-data-sources"


class Hosting:
    """The endpoints of one account and region."""

    def __init__(self, clients: Clients, options: SageMakerOptions, hosts: Hosts) -> None:
        self._clients = clients
        self._options = options
        self._hosts = hosts

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, given: dict[str, Any]) -> Plan:
        """Deploy on a dedicated endpoint, or with others. Raises InputError, UnsupportedError."""
        try:
            deployment = SageMakerDeployment.model_validate(given)
        except ValidationError as error:
            found = problems_of(error, model=SageMakerDeployment, values=given, place=lambda path: (None, None))
            raise InputError(found) from error
        what = deployment.model_dump_json(exclude={"name"})
        token = hashlib.sha256(f"deploy\n{model.scope}\n{model.id}\n{what}".encode()).hexdigest()[:32]
        options = self._options
        aim = Aim(
            NAME, model.scope, deployment.name or short(model.id, token), model.id, token, options.tags,
            options.deploy_limit, warnings=_warnings(deployment), cost=_cost(deployment, hourly.region_of(model.scope)),
        )  # fmt: skip
        if deployment.onto is not None:
            return adapters.plan(aim, model, deployment, options, self._image(deployment))
        body = self._model(model, deployment)
        copies = _copies(deployment)
        if deployment.endpoint is not None:
            part = Part(
                _needs(deployment, deployment.accelerators or 0),
                deployment.endpoint,
                deployment.variant,
                _first(deployment),
            )
            return host_plans.on_endpoint(aim, body, part, copies)
        config: dict[str, Any] = {"ProductionVariants": [_variant(aim.name, deployment)]}
        bodies = {"model": body, "config": config, "endpoint": {"EndpointConfigName": aim.name}}
        if copies is None:
            return host_plans.alone(aim, bodies)
        config["ExecutionRoleArn"] = options.role_arn
        part = Part(_needs(deployment, _accelerators(deployment)), aim.name, copies=_first(deployment))
        return host_plans.scaled(aim, bodies, part, copies)

    def _model(self, model: TunedModel, deployment: SageMakerDeployment) -> dict[str, Any]:
        options = self._options
        if package := model.raw.get("package"):
            container: dict[str, Any] = {"ModelPackageName": package}
        else:
            container = {"Image": self._image(deployment)} | _weights(str(model.uri))
        base = model.raw.get("base") or {}
        environment = {"CLOUDTUNE_TRUST_REMOTE_CODE": "1"} if model.trust_remote_code else {}
        if base.get("s3"):
            environment["CLOUDTUNE_BASE"] = f"{_MOUNTED}/{_CHANNEL}{base.get('below', '')}"
            source = {"S3Uri": base["s3"], "S3DataType": "S3Prefix", "CompressionType": "None"}
            container["AdditionalModelDataSources"] = [{"ChannelName": _CHANNEL, "S3DataSource": source}]
        if environment:
            container["Environment"] = environment
        body: dict[str, Any] = {"ExecutionRoleArn": options.role_arn, "PrimaryContainer": container}
        if options.subnets:
            body["VpcConfig"] = {"Subnets": list(options.subnets), "SecurityGroupIds": list(options.security_groups)}
        if options.network_isolation:
            body["EnableNetworkIsolation"] = True
        return body

    def _image(self, deployment: SageMakerDeployment) -> str:
        if self._options.inference_image:
            return self._options.inference_image
        known = instances.instance_of(deployment.instance_type)
        has_gpu = deployment.serverless_memory_mb is None and (known is None or known.gpus > 0)
        region, kind = self._clients.region, deployment.instance_type
        if deployment.onto is not None and not has_gpu:
            raise UnsupportedError([Problem(
                code="instance", field="instance_type", message=f"{kind} has no GPU, which the LMI image requires",
                fix="choose another instance_type, or set an image in backends.sagemaker.inference_image",
            )])  # fmt: skip
        scope: images.Scope = "adapters" if deployment.onto is not None else "inference"
        return images.image_uri(scope, region, kind, gpu=has_gpu, setting="inference_image")

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Delete billed resources before their parts. Raises InvalidRequest if others are on the endpoint."""
        what = "\n".join(("remove", deployment.scope, deployment.id, deployment.model, str(deployment.created_at)))
        return self._hosts.plan_remove(deployment, hashlib.sha256(what.encode()).hexdigest()[:32])

    # -- inference -------------------------------------------------------------------------------------------------

    def generate(
        self, standing: Deployment, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions
    ) -> Iterator[Generation]:
        """One answer for each prompt, first in chunks if requested."""
        where, more = where_of(standing), dict[str, Any]()
        held = standing.raw.get("cloudtune") or {}
        if options.base and held.get("base"):
            where["InferenceComponentName"] = str(held["base"])
        elif options.base and model.raw.get("package"):
            if not self._options.base_endpoint:
                raise InvalidRequest(
                    f"the base model {model.base} requires its own endpoint",
                    hint="deploy it in SageMaker, and set the endpoint as backends.sagemaker.base_endpoint",
                )
            where = {"EndpointName": self._options.base_endpoint}
        elif options.base:
            more["base"] = True
        for prompt in prompts:
            who = model.base if options.base else model.id
            yield from inference.asked(self._clients, where, prompt, options, who, **more)


def _weights(url: str) -> dict[str, Any]:
    """The location of a container's model: an archive, or an unpacked folder."""
    if url.endswith(".tar.gz"):
        return {"ModelDataUrl": url}
    place = {"S3Uri": f"{url.rstrip('/')}/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    return {"ModelDataSource": {"S3DataSource": place}}


def _variant(name: str, deployment: SageMakerDeployment) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": "AllTraffic"}
    if deployment.min_copies is not None:  # the model is in a component; its copies need the instances
        scaling = {
            "Status": "ENABLED",
            "MinInstanceCount": deployment.min_copies,
            "MaxInstanceCount": deployment.instances,
        }
        return {**variant, "InstanceType": deployment.instance_type, "InitialInstanceCount": _first(deployment),
                "ManagedInstanceScaling": scaling,
                "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}}  # fmt: skip
    variant["ModelName"] = name
    if deployment.serverless_memory_mb is not None:
        memory = {"MemorySizeInMB": deployment.serverless_memory_mb, "MaxConcurrency": deployment.max_concurrency}
        return {**variant, "ServerlessConfig": memory}
    return {**variant, "InstanceType": deployment.instance_type, "InitialInstanceCount": deployment.instances}


def _first(deployment: SageMakerDeployment) -> int:
    """Return the initial number of copies. Starts with one, because a new deployment is used soon."""
    return deployment.instances if deployment.min_copies is None else max(1, deployment.min_copies)


def _copies(deployment: SageMakerDeployment) -> Copies | None:
    if deployment.min_copies is None:
        return None
    return Copies(deployment.min_copies, deployment.instances, deployment.requests_per_minute, deployment.cooldown)


def _needs(deployment: SageMakerDeployment, accelerators: int) -> dict[str, Any]:
    needs: dict[str, Any] = {"MinMemoryRequiredInMb": deployment.memory_mb}
    if accelerators:
        needs["NumberOfAcceleratorDevicesRequired"] = accelerators
    return {"ComputeResourceRequirements": needs}


def _accelerators(deployment: SageMakerDeployment) -> int:
    """On a dedicated instance, all GPUs."""
    if deployment.accelerators is not None:
        return deployment.accelerators
    known = instances.instance_of(deployment.instance_type)
    return known.gpus if known else 0


def _warnings(deployment: SageMakerDeployment) -> tuple[Problem, ...]:
    if deployment.serverless_memory_mb is not None or deployment.endpoint is not None:
        return ()
    kind, fix = f"{deployment.instances} x {deployment.instance_type}", "to list them: cloudtune deployments"
    message = f"{kind} are billed by the hour, even when idle, until they are deleted"
    if deployment.min_copies == 0:
        message = f"up to {kind} are billed by the hour while in use, and for about 25 minutes after"
    if deployment.onto is not None:
        message = f"{message}; {deployment.onto} shares them, and they remain when this adapter is removed"
    return (Problem(code="hosting", severity="warning", field="instance_type", message=message, fix=fix),)


def _cost(deployment: SageMakerDeployment, region: str) -> CostEstimate | None:
    if deployment.endpoint is not None:
        return None
    if deployment.serverless_memory_mb is not None:
        return CostEstimate(usd=None, basis=f"{deployment.serverless_memory_mb} MB, billed per second of inference")
    return hourly.hosting(deployment.instance_type, deployment.instances, region, sleeps=deployment.min_copies == 0)
