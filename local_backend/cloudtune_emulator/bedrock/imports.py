"""Import of models that were trained elsewhere: the job, its failures, and the imported model.

Importable models: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html (seen
2026-11-21). A job cannot be stopped: botocore 1.44.5 has no such operation.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cloudtune.errors import ArchiveError
from cloudtune.files.archives import safe_parts
from cloudtune.files.model_files import json_object
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.aws.errors import conflict, invalid
from cloudtune_emulator.bedrock import resources
from cloudtune_emulator.bedrock.resources import API
from cloudtune_emulator.engines import ScriptEngine
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.job_timeline import Script
from cloudtune_emulator.store import Ended

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator.context import EmulatorContext

JOB = "import"
MODEL = "imported_model"
ARCHITECTURES = {
    "MistralForCausalLM": "mistral", "MixtralForCausalLM": "mixtral", "T5ForConditionalGeneration": "flan-t5",
    "LlamaForCausalLM": "llama", "MllamaForConditionalGeneration": "mllama", "GPTBigCodeForCausalLM": "gpt_bigcode",
    "Qwen2ForCausalLM": "qwen2", "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl", "Qwen2VLForConditionalGeneration":
    "qwen2_vl", "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe",
}  # fmt: skip
REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1")
_TYPES = ("float32", "float16", "bfloat16")
_LARGEST = 200 << 30
_IMPORTING = Script(validating_s=1.0, queued_s=0.0, running_s=2.0)
"""The duration of an import with the train engine."""


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateModelImportJob. Its token is not filled in by the SDK (botocore 1.44.5)."""
    body = call.body
    with context.store.alone():
        if (made := resources.repeated(context, call, JOB)) is not None:
            return Reply(status=201, body={"jobArn": made["arn"]})
        if call.region not in REGIONS:
            raise invalid(f"Custom model import is not available in {call.region}.")
        if resources.by_name(context, JOB, call.region, body["jobName"]) is not None:
            raise conflict(f"The provided job name {body['jobName']} is already in use.")
        if _is_taken(context, call, body["importedModelName"]):
            raise conflict(f"The provided imported model name {body['importedModelName']} is already in use.")
        resources.assume(context, body["roleArn"])
        number = resources.named_id(JOB, call.region, body["jobName"])
        model = resources.named_id(MODEL, number)
        fault, architecture = _inspect(context, call, body["modelDataSource"])
        takes, failure = course(context)
        made = {
            "id": number,
            "arn": resources.arn(context, call.region, f"model-import-job/{number}"),
            "region": call.region,
            "name": body["jobName"],
            "created": call.now,
            "request": body,
            "fault": fault,
            "settled": False,
            "architecture": architecture,
            "model": model,
            "tags": resources.tags(body.get("jobTags")),
            "model_arn": resources.arn(context, call.region, f"imported-model/{model}"),
            "takes": takes,
            "failure": failure,
        }
        resources.keep(context, call, JOB, made)
    return Reply(status=201, body={"jobArn": made["arn"]})


def course(context: EmulatorContext) -> tuple[float, str | None]:
    """The duration of an import, and the reason of its failure, if any."""
    engine = context.engine
    script = engine.script if isinstance(engine, ScriptEngine) else _IMPORTING
    share = 1.0 if script.fail_at is None else script.fail_at
    takes = script.validating_s + script.queued_s + script.running_s * share
    return takes, None if script.fail_at is None else script.error_message


def _is_taken(context: EmulatorContext, call: Call, name: str) -> bool:
    going = [job for job in resources.under(context, JOB, call.region) if not job["settled"]]
    is_coming = any(job["request"]["importedModelName"] == name for job in going)
    return is_coming or resources.by_name(context, MODEL, call.region, name) is not None


def _inspect(context: EmulatorContext, call: Call, source: dict[str, Any]) -> tuple[str | None, str]:
    """The error that will fail the job, and the model's architecture. Raises AwsError if no file exists."""
    place = buckets.parse(source["s3DataSource"]["s3Uri"])
    folder = place._replace(key=place.key.rstrip("/") + "/" if place.key else "")
    try:
        files = dict(buckets.keys(context, folder))
        lies = buckets.region(context, place.bucket)
    except buckets.NoSuch as error:
        raise invalid(f"The bucket {place.bucket} does not exist, or may not be accessed.") from error
    if lies != call.region:
        raise invalid(f"The bucket {place.bucket} is in {lies}; it must be in the job's region, {call.region}.")
    names = {key.removeprefix(folder.key): size for key, size in files.items()}
    if not names:
        raise invalid(f"There are no model files under {place.uri}.")
    if "config.json" not in names:
        return "The model files are not valid: config.json is missing.", ""
    try:
        config = json_object(buckets.get(context, folder.under("config.json")))
        architecture = str(config["architectures"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return "The model files are not valid: config.json names no architecture.", ""
    return _fault(config, architecture, names), ARCHITECTURES.get(architecture, architecture)


def _fault(config: dict[str, Any], architecture: str, names: dict[str, int]) -> str | None:
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if architecture not in ARCHITECTURES:
        return f"The architecture {architecture} is not supported."
    if "quantization_config" in config:
        return "Quantized models are not supported."
    if kind not in _TYPES:
        return f"The data type {kind} is not supported: use {', '.join(_TYPES)}."
    if not any(name.endswith(".safetensors") for name in names):
        return "The model files are not valid: there are no safetensors files."
    if "tokenizer_config.json" not in names or not {"tokenizer.json", "tokenizer.model"} & set(names):
        return "The model files are not valid: the tokenizer's files are missing."
    if sum(names.values()) > _LARGEST:
        return "The model is larger than 200 GB."
    return None


def _word(job: dict[str, Any], now: float) -> str:
    if job["fault"] is not None:  # this error occurs while the files are validated
        return "Failed" if now >= job["created"] + min(1.0, job["takes"]) else "InProgress"
    if now < job["created"] + job["takes"]:
        return "InProgress"
    return "Completed" if job["failure"] is None else "Failed"


def _ended(job: dict[str, Any]) -> float:
    return float(job["created"] + (min(1.0, job["takes"]) if job["fault"] else job["takes"]))


def ended(context: EmulatorContext, job: dict[str, Any], now: float) -> Ended | None:
    """The end of an import job that is over. A completed one creates its model."""
    said = _word(job, now)
    if said == "InProgress":
        return None

    def record() -> None:
        if said == "Completed":
            request = job["request"]
            context.store.add(
                MODEL, API,
                {"id": job["model"], "arn": job["model_arn"], "region": job["region"], "created": _ended(job),
                 "name": request["importedModelName"], "job": job["id"], "architecture": job["architecture"],
                 "source": request["modelDataSource"], "tags": resources.tags(request.get("importedModelTags"))},
            )  # fmt: skip
            copy(context, request["modelDataSource"]["s3DataSource"]["s3Uri"], job["model"])

    return Ended(_ended(job), record)


def copy(context: EmulatorContext, uri: str, model: str) -> None:
    """Copy a model's files out of S3. Raises NoSuch if they no longer exist."""
    place, target = buckets.parse(uri), context.store.content(f"imported-{model}")
    folder = place._replace(key=place.key.rstrip("/") + "/" if place.key else "")
    for key, _ in buckets.keys(context, folder):
        with contextlib.suppress(ArchiveError):  # a name that points outside the folder: its object is skipped
            path = target.joinpath(*safe_parts(key.removeprefix(folder.key)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buckets.get(context, buckets.Place(place.bucket, key)))


def get_job(context: EmulatorContext, call: Call) -> Reply:
    """GetModelImportJob."""
    job = resources.find(context, JOB, call, call.ids["jobIdentifier"], "import job")
    request = job["request"]
    shown = _summary(context, call, job) | {
        "roleArn": request["roleArn"],
        "modelDataSource": request["modelDataSource"],
    }
    if _word(job, call.now) == "Failed":
        shown["failureMessage"] = job["fault"] or job["failure"]
    if "vpcConfig" in request:
        shown["vpcConfig"] = request["vpcConfig"]
    if "importedModelKmsKeyId" in request:
        shown["importedModelKmsKeyArn"] = request["importedModelKmsKeyId"]
    return Reply(body=shown)


def list_jobs(context: EmulatorContext, call: Call) -> Reply:
    """ListModelImportJobs."""
    views = [_summary(context, call, job) for job in resources.under(context, JOB, call.region)]
    return resources.page(context, call, views, under="modelImportJobSummaries", name="jobName", made="creationTime")


def _summary(context: EmulatorContext, call: Call, job: dict[str, Any]) -> dict[str, Any]:
    said = _word(job, call.now)
    invented = context.faults.condition("invented_status", call.name)
    changed = job["created"] if said == "InProgress" else _ended(job)
    shown = {
        "jobArn": job["arn"], "jobName": job["name"], "status": invented.value if invented else said,
        "creationTime": resources.stamp(context, job["created"]), "lastModifiedTime": resources.stamp(context, changed),
        "importedModelName": job["request"]["importedModelName"],
    }  # fmt: skip
    if said != "InProgress":
        shown["endTime"] = resources.stamp(context, changed)
    if said == "Completed":
        shown["importedModelArn"] = job["model_arn"]
    return shown


def get_model(context: EmulatorContext, call: Call) -> Reply:
    """GetImportedModel."""
    model = resources.find(context, MODEL, call, call.ids["modelIdentifier"], "model")
    job = context.store.get(JOB, API, model["job"])
    assert job is not None
    units = {"customModelUnitsPerModelCopy": 1, "customModelUnitsVersion": "v1.0"}
    shown = _model_summary(context, model) | {
        "jobName": job["name"], "jobArn": job["arn"], "modelDataSource": model["source"], "customModelUnits": units,
    }  # fmt: skip
    return Reply(body=shown)


def list_models(context: EmulatorContext, call: Call) -> Reply:
    """ListImportedModels."""
    views = [_model_summary(context, model) for model in resources.under(context, MODEL, call.region)]
    return resources.page(context, call, views, under="modelSummaries", name="modelName", made="creationTime")


def _model_summary(context: EmulatorContext, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "modelArn": model["arn"],
        "modelName": model["name"],
        "creationTime": resources.stamp(context, model["created"]),
        "instructSupported": True,
        "modelArchitecture": model["architecture"],
    }


def delete_model(context: EmulatorContext, call: Call) -> Reply:
    """DeleteImportedModel."""
    with context.store.alone():
        model = resources.find(context, MODEL, call, call.ids["modelIdentifier"], "model")
        context.store.remove(MODEL, API, model["id"])
    return Reply(body={})


def fetched(context: EmulatorContext, model: dict[str, Any]) -> Path:
    """The model's files in a folder, copied out of S3 at the import: later changes in S3 have no effect."""
    return context.store.content(f"imported-{model['id']}")
