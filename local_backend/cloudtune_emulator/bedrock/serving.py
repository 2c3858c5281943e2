"""Resolves a runtime model id: a deployment, provisioned throughput, an imported model, or a base model.

A custom model's own ARN is not valid here: it has to be deployed first
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-use.html; the error message is quoted
in terricain/aioboto3#352; seen 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws.errors import AwsError, invalid, not_found
from cloudtune_emulator.bedrock import (
    base_models,
    deployments,
    imports,
    models,
    resources,
    throughput,
)
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.engines import Sampling, Served, Spoken

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.http import Call

_NOT_READY = "Model is not ready for inference. Wait and try your request again."


def answer(context: EmulatorContext, call: Call, messages: list[dict[str, Any]], sampling: Sampling) -> Spoken:
    """The answer of the model that the path names. Raises ApiError."""
    return context.engine.answer(served(context, call), messages, sampling)


def family(context: EmulatorContext, call: Call) -> str:
    """The body format of the model: nova, llama or imported."""
    found = served(context, call)
    if ":imported-model/" in call.ids["modelId"]:
        return "imported"
    return "nova" if found.base.startswith("amazon.nova") else "llama"


def served(context: EmulatorContext, call: Call) -> Served:
    """The model of the id in the path. Raises AwsError."""
    model_id = call.ids["modelId"]
    if ":custom-model-deployment/" in model_id:
        one = resources.find(context, deployments.KIND, call, model_id, "custom model deployment")
        if deployments.status(context, one, call.now) != "Active":
            raise AwsError(429, "ModelNotReadyException", _NOT_READY)
        return _tuned(context, model_id, deployments.serving(context, one, call.now))
    if ":provisioned-model/" in model_id:
        one = resources.find(context, throughput.KIND, call, model_id, "provisioned model")
        if throughput.status(context, one, call.now) == "Creating":
            raise AwsError(429, "ModelNotReadyException", _NOT_READY)
        model = throughput.serving(context, one, call.now)
        return _base(base_models.plain(model)) if ":foundation-model/" in model else _tuned(context, model_id, model)
    if ":imported-model/" in model_id:
        return _imported(context, call, model_id)
    if ":custom-model/" in model_id:
        models.find(context, call, model_id)
        raise invalid(
            f"Invocation of model ID {model_id} with on-demand throughput isn\u2019t supported. Retry your "
            "request with the ID or ARN of an inference profile that contains this model."
        )
    return _base(base_models.plain(model_id))


def _tuned(context: EmulatorContext, name: str, arn: str) -> Served:
    model = models.must(context, arn)
    if model["job"] is None:
        return Served(name=name, base=model["base"], folder=imports.fetched(context, model))
    job = context.store.get("job", API, model["job"])
    assert job is not None
    return Served(
        name=name, base=model["base"], job=job, training_file=context.store.content(f"{job['id']}-training.jsonl")
    )


def _base(name: str) -> Served:
    found = base_models.inference(name.removeprefix("us.").removeprefix("eu.").removeprefix("apac."))
    if found is None:
        raise invalid("The provided model identifier is invalid.")
    if not found.methods:
        raise not_found("This model version has reached the end of its life. Please refer to the AWS documentation.")
    return Served(name=name, base=found.id)


def _imported(context: EmulatorContext, call: Call, arn: str) -> Served:
    model = resources.find(context, imports.MODEL, call, arn, "model")
    return Served(name=arn, base=model["architecture"], folder=imports.fetched(context, model))
