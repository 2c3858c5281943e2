"""Adapters of several jobs on one endpoint with their base model: the settings of AWS's LMI image. Pure.

LMI loads a base model from ``/opt/ml/model`` or the hub, and an adapter from its archive when its component is created
(docs.djl.ai, LMI adapters; docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-adapt.html; seen 2026-11-21).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem, UnsupportedError
from cloudtune.plan import Setting
from cloudtune_providers.aws import host_plans
from cloudtune_providers.aws.host_plans import Part
from cloudtune_providers.sagemaker import instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import Plan
    from cloudtune.state import TunedModel
    from cloudtune_providers.aws.host_plans import Aim
    from cloudtune_providers.sagemaker.options import SageMakerDeployment, SageMakerOptions

_SERVED = frozenset({"lora", "qlora"})
_MODEL_FOLDER = "/opt/ml/model"
_LONGEST_TAG = 256
_IMAGES_PAGE = "default of sagemaker: AWS's LMI, aws.github.io/deep-learning-containers/reference/available_images"
# As AWS's own recipes host adapters (github.com/aws/sagemaker-hyperpod-recipes, HostingConfigs; docs.djl.ai, vLLM user
# guide; seen 2026-11-21).
_LMI = {
    "OPTION_ASYNC_MODE": "true", "OPTION_ENTRYPOINT": "djl_python.lmi_vllm.vllm_async_service",
    "OPTION_ROLLING_BATCH": "disable", "OPTION_TENSOR_PARALLEL_DEGREE": "max", "OPTION_ENABLE_LORA": "true",
    "SAGEMAKER_MAX_NUMBER_OF_ADAPTERS_IN_MEMORY": "128", "SAGEMAKER_ENABLE_LOAD_AWARE": "1",
}  # fmt: skip


def plan(aim: Aim, model: TunedModel, deployment: SageMakerDeployment, options: SageMakerOptions, image: str) -> Plan:
    """Return steps for the base model on endpoint ``onto``, if missing, and the adapter. Raises UnsupportedError."""
    problems = list(_problems(model))
    if problems:
        raise UnsupportedError(problems)
    assert deployment.onto is not None
    source = _base_of(model)
    # Every deployment with the same base model has the same steps; later ones find them done.
    token = hashlib.sha256(f"base\n{model.scope}\n{deployment.onto}\n{source}".encode()).hexdigest()[:32]
    base = aim._replace(name=deployment.onto, model=_tag(model.base), token=token, warnings=(), cost=None)
    variant = {"VariantName": "AllTraffic", "InstanceType": deployment.instance_type,
               "InitialInstanceCount": deployment.instances,
               "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}}  # fmt: skip
    bodies: dict[str, dict[str, Any]] = {
        "model": _model(source, deployment, options, image),
        "config": {"ExecutionRoleArn": options.role_arn, "ProductionVariants": [variant]},
        "endpoint": {"EndpointConfigName": deployment.onto},
    }
    needs = {
        "MinMemoryRequiredInMb": deployment.memory_mb,
        "NumberOfAcceleratorDevicesRequired": _accelerators(deployment),
    }
    base_part = Part({"ComputeResourceRequirements": needs}, deployment.onto, copies=deployment.instances)
    part = Part(
        {"BaseInferenceComponentName": deployment.onto, "Container": {"ArtifactUrl": model.uri}}, deployment.onto
    )
    source_of_image = "backends.sagemaker.inference_image" if options.inference_image else _IMAGES_PAGE
    settings = (Setting(field="image", value=image, source=source_of_image),
                Setting(field="base model", value=source, source="derived: the job's own"))  # fmt: skip
    aim = aim._replace(warnings=(*aim.warnings, _renders(model)), settings=settings)
    return host_plans.adapter(aim, base, bodies, base_part, part)


def _model(source: str, deployment: SageMakerDeployment, options: SageMakerOptions, image: str) -> dict[str, Any]:
    environment = _LMI | {
        "OPTION_MAX_LORAS": str(deployment.max_adapters), "OPTION_MAX_LORA_RANK": str(deployment.max_lora_rank),
    }  # fmt: skip
    container: dict[str, Any] = {"Image": image}
    if source.startswith("s3://"):
        place = {"S3Uri": f"{source.rstrip('/')}/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        container["ModelDataSource"] = {"S3DataSource": place}
        environment["HF_MODEL_ID"] = _MODEL_FOLDER
    else:
        environment["HF_MODEL_ID"] = source
    container["Environment"] = environment
    body: dict[str, Any] = {"ExecutionRoleArn": options.role_arn, "PrimaryContainer": container}
    if options.subnets:
        body["VpcConfig"] = {"Subnets": list(options.subnets), "SecurityGroupIds": list(options.security_groups)}
    if options.network_isolation:
        body["EnableNetworkIsolation"] = True
    return body


def _problems(model: TunedModel) -> Iterator[Problem]:
    if model.adapter not in _SERVED:
        message = f"{model.id} has the adapter {model.adapter or 'unknown'}; only LoRA adapters can share a base model"
        yield Problem(code="adapter", field="onto", message=message, fix="deploy it on its own endpoint")
    if not str(model.uri or "").endswith(".tar.gz"):
        yield Problem(code="adapter", field="onto", message=f"{model.id} is not an archive in S3: {model.uri}",
                      fix="deploy it on its own endpoint")  # fmt: skip
    if not _base_of(model):
        yield Problem(
            code="base", field="onto", message=f"the base model {model.base} is neither in an S3 folder nor on the "
            "hub", fix="train from a model folder or a hub id",
        )  # fmt: skip


def _base_of(model: TunedModel) -> str:
    """The location of the base model: a prefix in S3, or an id on the hub; empty if LMI cannot load it."""
    held = model.raw.get("base") or {}
    if held.get("s3"):
        return "" if held.get("below") else str(held["s3"])  # below it: a single file, such as GGUF
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", model.base) and not model.base.endswith((".json", ".gguf"))
    return model.base if is_id else ""


def _accelerators(deployment: SageMakerDeployment) -> int:
    known = instances.instance_of(deployment.instance_type)
    return deployment.accelerators or (known.gpus if known else 0) or 1


def _tag(text: str) -> str:
    return re.sub(r"[^\w\s.:/=+@-]", "_", text)[:_LONGEST_TAG]


def _renders(model: TunedModel) -> Problem:
    message = f"LMI uses the chat template of {model.base}, which has none"
    return Problem(code="chat_template", severity="warning", field="onto", message=message,
                   fix="use a base model with a chat template")  # fmt: skip
