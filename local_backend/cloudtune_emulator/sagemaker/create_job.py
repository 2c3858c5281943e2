"""CreateTrainingJob: the errors that the service returns before it accepts a job.

The name is unique in account and region, and reusing it is ResourceInUse: there is no client token (botocore 1.44.5,
service model). Missing input is refused at once ("No S3 objects found under S3 URL ..."). Its content is not checked: a
job with bad rows fails later
(docs.aws.amazon.com/sagemaker/latest/dg/model-train-troubleshooting.html, seen 2026-11-21).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import (
    hub,
    naming,
    packages,
    rows,
    shapes,
)

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

KIND = "training_job"
_EPOCHS = ("epoch", "epochs", "max_epochs", "num_train_epochs")
_BATCHES = ("global_batch_size", "per_device_train_batch_size", "batch_size")
OWN_LINE = '[cloudtune] metrics {{"step": {step}, "total_steps": {steps}, "epoch": {epoch}, "train:loss": {loss}}}'
"""The log line of cloudtune's trainer; other programs are assumed to use Hugging Face's Trainer."""


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateTrainingJob."""
    body = call.body
    name = body["TrainingJobName"]
    if body.get("ServerlessJobConfig"):
        _serverless(context, call)
    else:
        _instances(context, call)
    _limits(body)
    _role(context, body["RoleArn"])
    _places(context, body)
    arn = naming.arn(context, call, "training-job", name)
    job: dict[str, Any] = {
        "id": name, "arn": arn, "region": call.region, "created": call.now, "request": body, "acts": [],
        "seed": int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"), "settled": False,
        "course": {},
    }  # fmt: skip
    with context.store.alone():
        if context.store.get(KIND, naming.shelf(call), name) is not None:
            message = "Job name must be unique within an AWS account and region, and a training job with this name "
            raise shapes.failed("ResourceInUse", f"{message}already exists ({arn})")
        job["course"] = _course(context, body)
        context.sagemaker.begin(context, job)
        context.store.add(KIND, naming.shelf(call), job)
        naming.label(context, call, arn, body.get("Tags"))
    return Reply(body={"TrainingJobArn": arn})


def _instances(context: EmulatorContext, call: Call) -> None:
    body = call.body
    algorithm, resources = body.get("AlgorithmSpecification"), body.get("ResourceConfig")
    if not algorithm or not (algorithm.get("TrainingImage") or algorithm.get("AlgorithmName")):
        raise shapes.refused("AlgorithmSpecification must name a TrainingImage or an AlgorithmName.")
    if not resources:
        raise shapes.refused("ResourceConfig is required for training jobs on instances.")
    has_one = resources.get("InstanceType") and resources.get("InstanceCount")
    if not (has_one or resources.get("InstanceGroups") or resources.get("InstancePreferences")):
        raise shapes.refused("ResourceConfig must have an InstanceType and an InstanceCount.")


def _serverless(context: EmulatorContext, call: Call) -> None:
    """A serverless job: no instance and no image; a model of the public hub, and a package group for the result."""
    body, config = call.body, call.body["ServerlessJobConfig"]
    if body.get("AlgorithmSpecification") or (body.get("ResourceConfig") or {}).get("InstanceType"):
        raise shapes.refused("A serverless training job has neither an AlgorithmSpecification nor instances.")
    if config["JobType"] == "FineTuning" and not config.get("CustomizationTechnique"):
        raise shapes.refused("CustomizationTechnique is required for JobType FineTuning.")
    document = hub.of_arn(context, call, config["BaseModelArn"])
    if document.get("GatedBucket") and not config.get("AcceptEula"):
        raise shapes.refused("You must accept the end user license agreement of the base model: set AcceptEula.")
    group = (body.get("ModelPackageConfig") or {}).get("ModelPackageGroupArn")
    if group is None:
        raise shapes.refused("ModelPackageConfig is required for serverless training jobs.")
    packages.group_of(context, call, group)
    if (source := body["ModelPackageConfig"].get("SourceModelPackageArn")) is not None:
        packages.find(context, call, source)
    hub.check_recipe(document, config, body.get("HyperParameters") or {})


def _limits(body: dict[str, Any]) -> None:
    condition = body.get("StoppingCondition") or {}
    runtime, wait = condition.get("MaxRuntimeInSeconds", 86400), condition.get("MaxWaitTimeInSeconds")
    if body.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:
            raise shapes.refused("MaxWaitTimeInSeconds must be given and not be less than MaxRuntimeInSeconds.")
    elif wait is not None:
        raise shapes.refused("MaxWaitTimeInSeconds is for managed spot training only.")
    names = [channel["ChannelName"] for channel in body.get("InputDataConfig") or ()]
    if len(set(names)) < len(names):
        raise shapes.refused("The names of the channels in InputDataConfig must be unique.")


def _role(context: EmulatorContext, arn: str) -> None:
    """A role of this account must exist; others are not checked."""
    account, _, name = arn.partition(":iam::")[2].partition(":role/")
    if account != context.settings.aws_account:
        return
    known = {role.name for role in context.aws.backend("iam").roles.values()}
    if naming.tail(name) not in known:
        message = f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        raise shapes.refused(f"{message}'sagemaker.amazonaws.com' to assume the role.")


def _places(context: EmulatorContext, body: dict[str, Any]) -> None:
    """Inputs must exist. The service notices a missing output bucket only at upload; here it is refused."""
    for channel in body.get("InputDataConfig") or ():
        if (uri := rows.source(channel)) is None:
            continue
        given = channel["DataSource"]["S3DataSource"]
        if hub.is_gated(uri) and not (given.get("ModelAccessConfig") or {}).get("AcceptEula"):
            message = f"The model at {uri} is gated: its end user license agreement must be accepted"
            raise shapes.refused(f"{message} by ModelAccessConfig.AcceptEula.")
        if not _has_objects(context, uri):
            message = f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the '
            message += "bucket exists in the selected region, that objects exist under that S3 prefix, and that the "
            raise shapes.refused(f'{message}role "{body["RoleArn"]}" has "s3:ListBucket" permissions on the bucket.')
    try:
        context.aws.backend("s3").get_bucket(buckets.parse(body["OutputDataConfig"]["S3OutputPath"]).bucket)
    except Exception as error:  # moto's MissingBucket, whose module differs between versions
        message = f"The bucket of the output {body['OutputDataConfig']['S3OutputPath']} does not exist."
        raise shapes.refused(message) from error


def _has_objects(context: EmulatorContext, uri: str) -> bool:
    try:
        return bool(buckets.keys(context, buckets.parse(uri)))
    except (buckets.NoSuch, ValueError):
        return False


def _course(context: EmulatorContext, body: dict[str, Any]) -> dict[str, Any]:
    """The amount of work: rows, epochs and batch size, as far as the hyperparameters give them."""
    channels = rows.channels({"request": body})
    train = channels.get("train")
    amount = rows.count(context, train) if train else 32
    given = body.get("HyperParameters") or {}
    epochs = _number(given, _EPOCHS, 3.0)
    batch = _number(given, _BATCHES, 4.0)
    algorithm = body.get("AlgorithmSpecification") or {}
    patterns = [str(definition["Regex"]) for definition in algorithm.get("MetricDefinitions") or ()]
    is_ours = any("cloudtune" in pattern for pattern in patterns)
    return {
        "line": OWN_LINE if is_ours else None, "rate": _number(given, ("learning_rate",), 2e-4),
        "rows": amount, "epochs": epochs,
        "steps": max(1, math.ceil(amount / max(1.0, batch) * epochs)), "has_validation": "validation" in channels,
    }  # fmt: skip


def _number(given: dict[str, str], names: tuple[str, ...], default: float) -> float:
    for name in names:
        try:
            return float(given[name].strip('"'))
        except (KeyError, ValueError):
            continue
    return default
