"""Model packages and their groups: created by serverless jobs, or registered by users.

Shapes: botocore 1.44.5, service model. A version is numbered within its group; a group is deleted only when it is empty
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteModelPackageGroup.html, seen 2026-11-21).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

from cloudtune.files.archives import read_tar
from cloudtune_emulator.aws import buckets
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import listing, naming, shapes

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_GROUP, _PACKAGE = "package_group", "package"


def create_group(context: EmulatorContext, call: Call) -> Reply:
    """CreateModelPackageGroup."""
    name = call.body["ModelPackageGroupName"]
    arn = naming.arn(context, call, "model-package-group", name)
    with context.store.alone():
        if context.store.get(_GROUP, naming.shelf(call), name) is not None:
            raise shapes.refused(f"Model Package Group already exists: {arn}")
        context.store.add(
            _GROUP, naming.shelf(call), {"id": name, "arn": arn, "created": call.now, "request": call.body}
        )
        naming.label(context, call, arn, call.body.get("Tags"))
    return Reply(body={"ModelPackageGroupArn": arn})


def group_of(context: EmulatorContext, call: Call, name: str) -> dict[str, Any]:
    """A group by name or ARN, or the service's error."""
    found = context.store.get(_GROUP, naming.shelf(call), naming.tail(name))
    if found is None:
        raise shapes.refused(f"Model Package Group {name} does not exist.")
    return found


def describe_group(context: EmulatorContext, call: Call) -> Reply:
    """DescribeModelPackageGroup."""
    return Reply(body=_group(context, group_of(context, call, call.body["ModelPackageGroupName"])) | {"CreatedBy": {}})


def _group(context: EmulatorContext, group: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "ModelPackageGroupName": group["id"], "ModelPackageGroupArn": group["arn"],
        "CreationTime": naming.timestamp(context, group["created"]), "ModelPackageGroupStatus": "Completed",
    }  # fmt: skip
    text = group["request"].get("ModelPackageGroupDescription")
    return shown | ({"ModelPackageGroupDescription": text} if text else {})


def list_groups(context: EmulatorContext, call: Call) -> Reply:
    """ListModelPackageGroups."""
    views = [_group(context, group) for group in context.store.all(_GROUP, naming.shelf(call))]
    return Reply(body=listing.page(call, views, under="ModelPackageGroupSummaryList", name="ModelPackageGroupName"))


def delete_group(context: EmulatorContext, call: Call) -> Reply:
    """DeleteModelPackageGroup."""
    with context.store.alone():
        group = group_of(context, call, call.body["ModelPackageGroupName"])
        if _of_group(context, call, group["id"]):
            raise shapes.failed("ConflictException", f"Model Package Group {group['id']} is not empty.")
        context.store.remove(_GROUP, naming.shelf(call), group["id"])
        naming.unlabel(context, call, group["arn"])
    return Reply(body=b"", content_type="application/x-amz-json-1.1")


# -- packages ----------------------------------------------------------------------------------------------------------


def create(context: EmulatorContext, call: Call) -> Reply:
    """CreateModelPackage: a version in a group, or a package with its own name."""
    body = call.body
    if body.get("ModelPackageGroupName"):
        group = group_of(context, call, body["ModelPackageGroupName"])
        return Reply(body={"ModelPackageArn": _add(context, call, group["id"], body)})
    if not body.get("ModelPackageName"):
        raise shapes.refused("ModelPackageName or ModelPackageGroupName is required.")
    if context.store.get(_PACKAGE, naming.shelf(call), body["ModelPackageName"]) is not None:
        raise shapes.failed("ConflictException", f"Model Package already exists: {body['ModelPackageName']}")
    return Reply(body={"ModelPackageArn": _add(context, call, None, body)})


def register(context: EmulatorContext, call: Call, job: dict[str, Any], data: bytes) -> str:
    """Create the version of a serverless job in its group. Its weights are unpacked beside the job's output.

    Nova's weights are in an AWS-owned bucket; ``manifest.json`` beside the output names their location.
    """
    request = job["request"]
    group = group_of(context, call, request["ModelPackageConfig"]["ModelPackageGroupArn"])
    base = request["ServerlessJobConfig"]["BaseModelArn"].partition("/Model/")[2].split("/")
    out = buckets.parse(request["OutputDataConfig"]["S3OutputPath"]).under(job["id"], "output", "model/")
    if "nova" in base[0].lower():
        out = _escrowed(context, call, job)
    unpack(context, out, data, call.now)
    source = {"S3DataSource": {"S3Uri": out.uri, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    container: dict[str, Any] = {"ModelDataSource": source, "BaseModel": {"HubContentName": base[0]}}
    if base[1:]:
        container["BaseModel"]["HubContentVersion"] = base[1]
    body = {"InferenceSpecification": {"Containers": [container]}, "SkipModelValidation": "All"}
    return _add(context, call, group["id"], body)


def escrow(context: EmulatorContext) -> str:
    """The name prefix of the AWS-owned buckets with this account's tuned Nova models."""
    return f"{buckets.ESCROW}{context.settings.aws_account}-"


def _escrowed(context: EmulatorContext, call: Call, job: dict[str, Any]) -> buckets.Place:
    """Create a location in an AWS-owned bucket, and the customer's ``manifest.json`` that names it.

    ``manifest.json``: github.com/aws/sagemaker-python-sdk, sagemaker-serve, bedrock_model_builder.py (seen 2026-11-21).
    """
    region = call.region or context.settings.aws_region
    bucket = f"{escrow(context)}smtj-{hashlib.sha256(region.encode()).hexdigest()[:8]}"
    with contextlib.suppress(Exception):  # moto's BucketAlreadyExists, whose module differs between versions
        context.aws.backend("s3").create_bucket(bucket, region)
    kept = buckets.Place(bucket, f"{job['id']}/")
    request = job["request"]
    note = {"checkpoint_s3_bucket": kept.uri}
    out = buckets.parse(request["OutputDataConfig"]["S3OutputPath"]).under(job["id"], "output", "output")
    buckets.put(context, out.under("manifest.json"), json.dumps(note).encode(), call.now)
    return kept


def tuned_in(context: EmulatorContext, call: Call, place: buckets.Place) -> tuple[str, bool]:
    """The base model of the weights in an AWS-owned bucket, and whether they are full weights."""
    job = context.store.get("training_job", naming.shelf(call), place.key.partition("/")[0])
    config = {} if job is None else job["request"].get("ServerlessJobConfig") or {}
    return str(config.get("BaseModelArn", "")).partition("/Model/")[2].partition("/")[0], not config.get("Peft")


def is_full(context: EmulatorContext, call: Call, arn: str) -> bool:
    """Whether a package holds full weights and no adapter, as its job requested."""
    made = (job for job in context.store.all("training_job", naming.shelf(call)) if job.get("package") == arn)
    return any(not job["request"]["ServerlessJobConfig"].get("Peft") for job in made)


def container(package: dict[str, Any]) -> dict[str, Any]:
    """The container of a package's model, and the location of its weights."""
    listed = (package["request"].get("InferenceSpecification") or {}).get("Containers") or [{}]
    return dict(listed[0])


def unpack(context: EmulatorContext, place: buckets.Place, data: bytes, now: float) -> None:
    """An archive's files as objects under a prefix."""
    files = {name: content.read() for name, content in read_tar(io.BytesIO(data))}
    for name, content in files.items():
        buckets.put(context, place.under(name), content, now)


def _add(context: EmulatorContext, call: Call, group: str | None, body: dict[str, Any]) -> str:
    with context.store.alone():
        name = body.get("ModelPackageName") or ""
        number = None
        if group is not None:
            number = 1 + max((one["number"] for one in _of_group(context, call, group)), default=0)
            name = f"{group}/{number}"
        arn = naming.arn(context, call, "model-package", name)
        context.store.add(
            _PACKAGE, naming.shelf(call),
            {"id": name, "arn": arn, "group": group, "number": number, "created": call.now, "request": body},
        )  # fmt: skip
        naming.label(context, call, arn, body.get("Tags"))
    return arn


def _of_group(context: EmulatorContext, call: Call, group: str) -> list[dict[str, Any]]:
    return [one for one in context.store.all(_PACKAGE, naming.shelf(call)) if one["group"] == group]


def find(context: EmulatorContext, call: Call, name: str) -> dict[str, Any]:
    """A package by name or ARN."""
    short = name.partition(":model-package/")[2] or name
    found = context.store.get(_PACKAGE, naming.shelf(call), short)
    if found is None:
        raise shapes.refused(f"ModelPackage {name} does not exist.")
    return found


def describe(context: EmulatorContext, call: Call) -> Reply:
    """DescribeModelPackage."""
    found = find(context, call, call.body["ModelPackageName"])
    shown = {key: value for key, value in found["request"].items() if key not in ("Tags", "ClientToken")}
    return Reply(body=shown | _summary(context, found) | {"ModelPackageStatusDetails": {"ValidationStatuses": []}})


def _summary(context: EmulatorContext, one: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "ModelPackageName": one["id"].partition("/")[0], "ModelPackageArn": one["arn"],
        "CreationTime": naming.timestamp(context, one["created"]), "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": one["request"].get("ModelApprovalStatus", "PendingManualApproval"),
    }  # fmt: skip
    if one["group"] is not None:
        shown |= {"ModelPackageGroupName": one["group"], "ModelPackageVersion": one["number"]}
    return shown


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListModelPackages."""
    group = call.body.get("ModelPackageGroupName")
    if group:
        group_of(context, call, group)
    held = context.store.all(_PACKAGE, naming.shelf(call))
    kept = [one for one in held if not group or one["group"] == naming.tail(group)]
    views = [_summary(context, one) for one in kept]
    return Reply(body=listing.page(call, views, under="ModelPackageSummaryList", name="ModelPackageName"))


def delete(context: EmulatorContext, call: Call) -> Reply:
    """DeleteModelPackage."""
    found = find(context, call, call.body["ModelPackageName"])
    context.store.remove(_PACKAGE, naming.shelf(call), found["id"])
    naming.unlabel(context, call, found["arn"])
    return Reply(body=b"", content_type="application/x-amz-json-1.1")
