"""Importing models that were trained elsewhere: the job, what makes it fail, and the imported model.

What may be imported: https://docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html (seen
2026-11-21). A job cannot be stopped: botocore 1.44.5 knows no such operation.
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
from cloudtune_emulator.bedrock.resources import FACE
from cloudtune_emulator.engines import ScriptEngine
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.job_timeline import Script

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune_emulator.context import Site

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
"""How long an import takes beside jobs that are really trained."""


def create(site: Site, call: Call) -> Reply:
    """CreateModelImportJob. Its token is not filled in by the SDK (botocore 1.44.5)."""
    body = call.body
    with site.store.alone():
        if (made := resources.repeated(site, call, JOB)) is not None:
            return Reply(status=201, body={"jobArn": made["arn"]})
        settle_all(site, call.now)
        if call.region not in REGIONS:
            raise invalid(f"Custom model import is not available in {call.region}.")
        if resources.by_name(site, JOB, call.region, body["jobName"]) is not None:
            raise conflict(f"The provided job name {body['jobName']} is already in use.")
        if _is_taken(site, call, body["importedModelName"]):
            raise conflict(f"The provided imported model name {body['importedModelName']} is already in use.")
        resources.assume(site, body["roleArn"])
        number = resources.named_id(JOB, call.region, body["jobName"])
        model = resources.named_id(MODEL, number)
        fault, architecture = _inspect(site, call, body["modelDataSource"])
        takes, failure = course(site)
        made = {
            "id": number, "arn": resources.arn(site, call.region, f"model-import-job/{number}"), "region": call.region,
            "name": body["jobName"], "created": call.now, "request": body, "fault": fault, "settled": False,
            "architecture": architecture, "model": model, "tags": resources.tags(body.get("jobTags")),
            "model_arn": resources.arn(site, call.region, f"imported-model/{model}"),
            "takes": takes, "failure": failure,
        }  # fmt: skip
        resources.keep(site, call, JOB, made)
    return Reply(status=201, body={"jobArn": made["arn"]})


def course(site: Site) -> tuple[float, str | None]:
    """How long it takes to take a model in, and what that fails of, if it does."""
    engine = site.engine
    script = engine.script if isinstance(engine, ScriptEngine) else _IMPORTING
    share = 1.0 if script.fail_at is None else script.fail_at
    takes = script.validating_s + script.queued_s + script.running_s * share
    return takes, None if script.fail_at is None else script.error_message


def _is_taken(site: Site, call: Call, name: str) -> bool:
    going = [job for job in resources.under(site, JOB, call.region) if not job["settled"]]
    is_coming = any(job["request"]["importedModelName"] == name for job in going)
    return is_coming or resources.by_name(site, MODEL, call.region, name) is not None


def _inspect(site: Site, call: Call, source: dict[str, Any]) -> tuple[str | None, str]:
    """What the job will fail of, and the model's architecture. Raises AwsError where nothing is there."""
    place = buckets.parse(source["s3DataSource"]["s3Uri"])
    folder = place._replace(key=place.key.rstrip("/") + "/" if place.key else "")
    try:
        files = dict(buckets.keys(site, folder))
        lies = buckets.region(site, place.bucket)
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
        config = json_object(buckets.get(site, folder.under("config.json")))
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
    if job["fault"] is not None:  # found while the files are validated
        return "Failed" if now >= job["created"] + min(1.0, job["takes"]) else "InProgress"
    if now < job["created"] + job["takes"]:
        return "InProgress"
    return "Completed" if job["failure"] is None else "Failed"


def _ended(job: dict[str, Any]) -> float:
    return float(job["created"] + (min(1.0, job["takes"]) if job["fault"] else job["takes"]))


def settle_all(site: Site, now: float) -> None:
    """Let every import that has ended by now leave its model."""
    for job in site.store.all(JOB, FACE):
        if job["settled"] or _word(job, now) == "InProgress":
            continue
        with site.store.alone():
            if _word(job, now) == "Completed" and site.store.get(MODEL, FACE, job["model"]) is None:
                asked = job["request"]
                site.store.add(
                    MODEL, FACE,
                    {"id": job["model"], "arn": job["model_arn"], "region": job["region"], "created": _ended(job),
                     "name": asked["importedModelName"], "job": job["id"], "architecture": job["architecture"],
                     "source": asked["modelDataSource"], "tags": resources.tags(asked.get("importedModelTags"))},
                )  # fmt: skip
                _fetch(site, job)
            job["settled"] = True
            site.store.save(JOB, FACE, job)


def _fetch(site: Site, job: dict[str, Any]) -> None:
    place = buckets.parse(job["request"]["modelDataSource"]["s3DataSource"]["s3Uri"])
    copy(site, place, site.store.content(f"imported-{job['model']}"))


def copy(site: Site, place: buckets.Place, target: Path) -> None:
    """A model's files out of S3 into a folder."""
    folder = place._replace(key=place.key.rstrip("/") + "/" if place.key else "")
    for key, _ in buckets.keys(site, folder):
        with contextlib.suppress(ArchiveError):  # a name that leads elsewhere: its object is left out
            path = target.joinpath(*safe_parts(key.removeprefix(folder.key)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buckets.get(site, buckets.Place(place.bucket, key)))


def get_job(site: Site, call: Call) -> Reply:
    """GetModelImportJob."""
    settle_all(site, call.now)
    job = resources.find(site, JOB, call, call.ids["jobIdentifier"], "import job")
    asked = job["request"]
    shown = _summary(site, call, job) | {"roleArn": asked["roleArn"], "modelDataSource": asked["modelDataSource"]}
    if _word(job, call.now) == "Failed":
        shown["failureMessage"] = job["fault"] or job["failure"]
    if "vpcConfig" in asked:
        shown["vpcConfig"] = asked["vpcConfig"]
    if "importedModelKmsKeyId" in asked:
        shown["importedModelKmsKeyArn"] = asked["importedModelKmsKeyId"]
    return Reply(body=shown)


def list_jobs(site: Site, call: Call) -> Reply:
    """ListModelImportJobs."""
    settle_all(site, call.now)
    views = [_summary(site, call, job) for job in resources.under(site, JOB, call.region)]
    return resources.page(site, call, views, under="modelImportJobSummaries", name="jobName", made="creationTime")


def _summary(site: Site, call: Call, job: dict[str, Any]) -> dict[str, Any]:
    said = _word(job, call.now)
    invented = site.faults.condition("invented_status", call.name)
    changed = job["created"] if said == "InProgress" else _ended(job)
    shown = {
        "jobArn": job["arn"], "jobName": job["name"], "status": invented.value if invented else said,
        "creationTime": resources.stamp(site, job["created"]), "lastModifiedTime": resources.stamp(site, changed),
        "importedModelName": job["request"]["importedModelName"],
    }  # fmt: skip
    if said != "InProgress":
        shown["endTime"] = resources.stamp(site, changed)
    if said == "Completed":
        shown["importedModelArn"] = job["model_arn"]
    return shown


def get_model(site: Site, call: Call) -> Reply:
    """GetImportedModel."""
    settle_all(site, call.now)
    model = resources.find(site, MODEL, call, call.ids["modelIdentifier"], "model")
    job = site.store.get(JOB, FACE, model["job"])
    assert job is not None
    units = {"customModelUnitsPerModelCopy": 1, "customModelUnitsVersion": "v1.0"}
    shown = _model_summary(site, model) | {
        "jobName": job["name"], "jobArn": job["arn"], "modelDataSource": model["source"], "customModelUnits": units,
    }  # fmt: skip
    return Reply(body=shown)


def list_models(site: Site, call: Call) -> Reply:
    """ListImportedModels."""
    settle_all(site, call.now)
    views = [_model_summary(site, model) for model in resources.under(site, MODEL, call.region)]
    return resources.page(site, call, views, under="modelSummaries", name="modelName", made="creationTime")


def _model_summary(site: Site, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "modelArn": model["arn"], "modelName": model["name"], "creationTime": resources.stamp(site, model["created"]),
        "instructSupported": True, "modelArchitecture": model["architecture"],
    }  # fmt: skip


def delete_model(site: Site, call: Call) -> Reply:
    """DeleteImportedModel."""
    with site.store.alone():
        settle_all(site, call.now)
        model = resources.find(site, MODEL, call, call.ids["modelIdentifier"], "model")
        site.store.remove(MODEL, FACE, model["id"])
    return Reply(body={})


def fetched(site: Site, model: dict[str, Any]) -> Path:
    """The model's files in a folder, copied out of S3 at the import: what happens to them there later is nothing."""
    return site.store.content(f"imported-{model['id']}")
