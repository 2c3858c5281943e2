"""Endpoints of tuned models: planned from the job that made them, asked in the form that the trainer's server takes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cloudtune.backend import CostEstimate
from cloudtune.errors import BackendError, InputError, InvalidRequest, PermissionDenied, Problem
from cloudtune.state import Generation
from cloudtune.validation import problems_of
from cloudtune_providers.aws.endpoints import Endpoints
from cloudtune_providers.aws.names import short
from cloudtune_providers.sagemaker import images, instances
from cloudtune_providers.sagemaker.capabilities import NAME
from cloudtune_providers.sagemaker.components import COMPONENT, READY, REMOVE, Components
from cloudtune_providers.sagemaker.options import SageMakerDeployment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from cloudtune.backend import Found, GenerateOptions, Plan, Probe, Prompt
    from cloudtune.state import Deployment, TunedModel
    from cloudtune_providers.aws.clients import Clients
    from cloudtune_providers.sagemaker.options import SageMakerOptions

_CHANNEL = "base"
_MOUNTED = "/opt/ml/additional-model-data-sources"


class Hosting:
    """The endpoints of one account and region."""

    def __init__(self, clients: Clients, options: SageMakerOptions) -> None:
        self._clients = clients
        self._options = options
        self._endpoints = Endpoints(clients, NAME)
        self._components = Components(clients)

    # -- plans -----------------------------------------------------------------------------------------------------

    def plan_deploy(self, model: TunedModel, given: dict[str, Any]) -> Plan:
        """Model, configuration, endpoint, and wait."""
        try:
            asked = SageMakerDeployment.model_validate(given)
        except ValidationError as error:
            found = problems_of(error, model=SageMakerDeployment, values=given, place=lambda path: (None, None))
            raise InputError(found) from error
        what = asked.model_dump_json(exclude={"name"})
        token = hashlib.sha256(f"deploy\n{model.scope}\n{model.id}\n{what}".encode()).hexdigest()[:32]
        name = asked.name or short(model.id, token)
        if asked.endpoint is not None:
            return self._components.plan_deploy(
                name, model, token, self._model(model, asked), asked, limit_s=self._options.deploy_limit,
                tags=self._options.tags,
            )  # fmt: skip
        bodies = {
            "model": self._model(model, asked),
            "config": {"ProductionVariants": [_variant(name, asked)]},
            "endpoint": {"EndpointConfigName": name},
        }
        return self._endpoints.plan_deploy(
            name, model.id, model.scope, token, bodies, limit_s=self._options.deploy_limit, tags=self._options.tags,
            warnings=_warnings(asked), cost=_cost(asked),
        )  # fmt: skip

    def _model(self, model: TunedModel, asked: SageMakerDeployment) -> dict[str, Any]:
        options = self._options
        if package := model.raw.get("package"):
            container: dict[str, Any] = {"ModelPackageName": package}
        else:
            container = {"Image": self._image(asked), "ModelDataUrl": model.uri}
        base = model.raw.get("base") or {}
        if base.get("s3"):
            container["Environment"] = {"CLOUDTUNE_BASE": f"{_MOUNTED}/{_CHANNEL}{base.get('below', '')}"}
            source = {"S3Uri": base["s3"], "S3DataType": "S3Prefix", "CompressionType": "None"}
            container["AdditionalModelDataSources"] = [{"ChannelName": _CHANNEL, "S3DataSource": source}]
        body: dict[str, Any] = {"ExecutionRoleArn": options.role_arn, "PrimaryContainer": container}
        if options.subnets:
            body["VpcConfig"] = {"Subnets": list(options.subnets), "SecurityGroupIds": list(options.security_groups)}
        if options.network_isolation:
            body["EnableNetworkIsolation"] = True
        return body

    def _image(self, asked: SageMakerDeployment) -> str:
        if self._options.inference_image:
            return self._options.inference_image
        known = instances.instance_of(asked.instance_type)
        has_gpu = asked.serverless_memory_mb is None and (known is None or known.gpus > 0)
        region, kind = self._clients.region, asked.instance_type
        return images.image_uri("inference", region, kind, gpu=has_gpu, setting="inference_image")

    def plan_remove(self, deployment: Deployment) -> Plan:
        """Endpoint, configuration, model: the endpoint first, since it costs. Of a component only what is ours."""
        what = "\n".join(("remove", deployment.scope, deployment.id, deployment.model, str(deployment.created_at)))
        token = hashlib.sha256(what.encode()).hexdigest()[:32]
        if "component" in (deployment.raw.get("cloudtune") or {}):
            return self._components.plan_remove(deployment, token)
        return self._endpoints.plan_remove(deployment, token)

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, step_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create or delete one thing."""
        return self._of(step_id).do(step_id, request)

    def find(self, step_id: str, request: Mapping[str, Any], now: datetime) -> Found:
        """Whether it is done already."""
        return self._of(step_id).find(step_id, request, now)

    def probe(self, step_id: str, name: str) -> Probe:
        """Whether it answers."""
        return self._of(step_id).probe(name)

    def _of(self, step_id: str) -> Endpoints | Components:
        return self._components if step_id in (COMPONENT, READY, REMOVE) else self._endpoints

    def listed(self, scope: str) -> list[Deployment]:
        """Endpoints and inference components of ours."""
        try:
            parts = self._components.listed(scope)
        except PermissionDenied:  # whoever may not list them has made none
            parts = []
        return [*self._endpoints.listed(scope), *parts]

    # -- answering -------------------------------------------------------------------------------------------------

    def serving(self, model: TunedModel) -> Deployment | None:
        """What answers for that model and is ready."""
        ready = (one for one in self.listed(model.scope) if one.model == model.id and one.state == "ready")
        return next(ready, None)

    def generate(
        self, standing: Deployment, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions
    ) -> Iterator[Generation]:
        """One answer for each prompt, whole: the endpoint's server has no stream."""
        is_ours = not model.raw.get("package")
        held = standing.raw.get("cloudtune") or {}
        component = held.get("component")
        where = {"EndpointName": held["endpoint"] if component else standing.id}
        if component:
            where["InferenceComponentName"] = component
        if options.base and not is_ours:
            if not self._options.base_endpoint:
                raise InvalidRequest(
                    f"the base model {model.base} answers only from an endpoint of its own",
                    hint="deploy it in SageMaker, and name the endpoint in backends.sagemaker.base_endpoint",
                )
            where = {"EndpointName": self._options.base_endpoint}
        for prompt in prompts:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
            body: dict[str, Any] = {
                "messages": messages, "max_tokens": options.max_tokens, "temperature": options.temperature,
                "top_p": options.top_p,
            }  # fmt: skip
            if options.seed is not None:
                body["seed"] = options.seed
            if options.base and is_ours:
                body["base"] = True
            yield _answer(self._invoke(where, body), model.base if options.base else model.id)

    def _invoke(self, where: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
        with self._clients.asking(f"endpoint {where['EndpointName']}", missing=InvalidRequest):
            told = self._clients.client("sagemaker-runtime").invoke_endpoint(
                **where, ContentType="application/json", Accept="application/json", Body=json.dumps(body).encode()
            )
            return bytes(told["Body"].read())


def _answer(content: bytes, model: str) -> Generation:
    try:
        told = json.loads(content)
        choice, usage = told["choices"][0], told.get("usage") or {}
        return Generation(
            text=str(choice["message"]["content"]), finish_reason=str(choice.get("finish_reason") or ""), model=model,
            prompt_tokens=usage.get("prompt_tokens"), completion_tokens=usage.get("completion_tokens"),
        )  # fmt: skip
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BackendError(f"the endpoint answered with what is no answer: {content[:200]!r}") from error


def _variant(name: str, asked: SageMakerDeployment) -> dict[str, Any]:
    variant: dict[str, Any] = {"VariantName": "AllTraffic", "ModelName": name}
    if asked.serverless_memory_mb is not None:
        memory = {"MemorySizeInMB": asked.serverless_memory_mb, "MaxConcurrency": asked.max_concurrency}
        return {**variant, "ServerlessConfig": memory}
    return {**variant, "InstanceType": asked.instance_type, "InitialInstanceCount": asked.instances}


def _warnings(asked: SageMakerDeployment) -> tuple[Problem, ...]:
    if asked.serverless_memory_mb is not None:
        return ()
    message = f"{asked.instances} x {asked.instance_type} cost by the hour, idle too, until they are taken down"
    fix = "see: cloudtune deployments"
    return (Problem(code="hosting", severity="warning", field="instance_type", message=message, fix=fix),)


def _cost(asked: SageMakerDeployment) -> CostEstimate:
    if asked.serverless_memory_mb is not None:
        return CostEstimate(usd=None, basis=f"{asked.serverless_memory_mb} MB by the second of answering")
    basis = f"{asked.instances} x {asked.instance_type} by the hour, until taken down; what it costs is not known here"
    return CostEstimate(usd=None, basis=basis)
