"""Existing training jobs: describe, list, stop, delete; and the results in S3 when one ends.

Shapes and messages: botocore 1.44.5, service model. A missing job is a ValidationException
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html and users' traces, seen 2026-11-21).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from cloudtune_emulator.aws import buckets
from cloudtune_emulator.http import Call, Reply
from cloudtune_emulator.sagemaker import (
    job_timeline,
    listing,
    logs,
    naming,
    packages,
    shapes,
)
from cloudtune_emulator.sagemaker.create_job import KIND
from cloudtune_emulator.store import Ended

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext
    from cloudtune_emulator.sagemaker.job_timeline import Seen

_NOT_SHOWN = frozenset({"Tags", "SessionChainingConfig"})
TOKENS_PER_ROW = 50


def find(context: EmulatorContext, call: Call, name: str) -> dict[str, Any]:
    """The job of that name, or the service's error."""
    job = context.store.get(KIND, naming.shelf(call), name)
    if job is None:
        raise shapes.refused("Requested resource not found.")
    return job


def ended(context: EmulatorContext, job: dict[str, Any], now: float) -> Ended | None:
    """Record the end of a job that is over. For an active job, update its log and its checkpoints in S3."""
    context.sagemaker.advance(context, job)
    seen = context.sagemaker.seen(context, job, now)
    logs.write(context, job, seen.lines)
    return Ended(seen.now.at, lambda: _leave(context, job, seen)) if seen.has_ended else None


def _leave(context: EmulatorContext, job: dict[str, Any], seen: Seen) -> None:
    if seen.now.status == "Failed" or not seen.has_trained:
        return
    data = context.sagemaker.artefact(context, job)
    if data is None:
        return
    place = _output(job)
    if job["request"]["OutputDataConfig"].get("CompressionType") == "NONE":
        packages.unpack(context, place, data, seen.now.at)
    else:
        buckets.put(context, place, data, seen.now.at)
    job["artefact"] = place.uri
    if job["request"].get("ServerlessJobConfig") and seen.now.status == "Completed":
        call = Call(api="sagemaker", name="settle", region=job["region"], now=seen.now.at)
        job["package"] = packages.register(context, call, job, data)


def _output(job: dict[str, Any]) -> buckets.Place:
    """``<S3OutputPath>/<job>/output/model.tar.gz``, or the folder ``model`` beside it if it is not compressed."""
    out = job["request"]["OutputDataConfig"]
    base = buckets.parse(out["S3OutputPath"]).under(job["id"], "output")
    return base.under("model/" if out.get("CompressionType") == "NONE" else "model.tar.gz")


def _shown(context: EmulatorContext, job: dict[str, Any], now: float) -> Seen:
    """The job's state for a request: ended only once its results are recorded.

    Its container may end between the settlement before a request and the request's own read.
    """
    seen = context.sagemaker.seen(context, job, now)
    return seen.before_end() if seen.has_ended and not job["settled"] else seen


def describe(context: EmulatorContext, call: Call) -> Reply:
    """DescribeTrainingJob."""
    job = find(context, call, call.body["TrainingJobName"])
    return Reply(body=view(context, call, job, _shown(context, job, call.now)))


def view(context: EmulatorContext, call: Call, job: dict[str, Any], seen: Seen) -> dict[str, Any]:
    """The fields of the request, and the state."""
    request, now = job["request"], call.now
    shown: dict[str, Any] = {key: value for key, value in request.items() if key not in _NOT_SHOWN}
    shown.setdefault("StoppingCondition", {"MaxRuntimeInSeconds": job_timeline.DEFAULT_MAX_RUNTIME_S})
    for key in ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"):
        shown.setdefault(key, False)
    shown |= _standing(context, call, seen)
    shown |= {
        "TrainingJobArn": job["arn"],
        "SecondaryStatusTransitions": _transitions(context, seen),
        "LastModifiedTime": naming.timestamp(context, seen.now.at),
        "CreationTime": naming.timestamp(context, job["created"]),
        "FinalMetricDataList": _final(context, job, seen),
    }
    if job.get("artefact"):
        shown["ModelArtifacts"] = {"S3ModelArtifacts": job["artefact"]}
    if seen.started is not None:
        shown["TrainingStartTime"] = naming.timestamp(context, seen.started)
        spent = int((seen.now.at if seen.has_ended else now) - seen.started)
        shown["TrainingTimeInSeconds"] = spent
        if not request.get("ServerlessJobConfig"):
            shown["BillableTimeInSeconds"] = int(spent * (0.3 if request.get("EnableManagedSpotTraining") else 1))
    if seen.has_ended:
        shown["TrainingEndTime"] = naming.timestamp(context, seen.now.at)
        if (request.get("ResourceConfig") or {}).get("KeepAlivePeriodInSeconds"):
            shown["WarmPoolStatus"] = {"Status": _pool(job, seen, now)}
    if request.get("ServerlessJobConfig"):
        shown |= _serverless(job, seen)
    return shown


def _standing(context: EmulatorContext, call: Call, seen: Seen) -> dict[str, Any]:
    word = context.faults.condition("invented_status", call.name)
    status = word.value if word else seen.now.status
    found = {"TrainingJobStatus": status, "SecondaryStatus": seen.now.secondary}
    return found | ({"FailureReason": seen.reason} if seen.reason and status == "Failed" else {})


def _transitions(context: EmulatorContext, seen: Seen) -> list[dict[str, Any]]:
    ends = [phase.at for phase in seen.phases[1:]]
    found = []
    for number, phase in enumerate(seen.phases):
        entry = {"Status": phase.secondary, "StartTime": naming.timestamp(context, phase.at),
                 "StatusMessage": job_timeline.MESSAGES.get(phase.secondary, phase.secondary)}  # fmt: skip
        if number < len(ends):
            entry["EndTime"] = naming.timestamp(context, ends[number])
        elif phase.status in job_timeline.TERMINAL:
            entry["EndTime"] = naming.timestamp(context, phase.at)
        found.append(entry)
    return found


def _final(context: EmulatorContext, job: dict[str, Any], seen: Seen) -> list[dict[str, Any]]:
    """The last value that each metric definition's regular expression matches in the log."""
    definitions = (job["request"].get("AlgorithmSpecification") or {}).get("MetricDefinitions") or ()
    found = []
    for definition in definitions:
        for at, line in reversed(seen.lines):
            if (hit := re.search(definition["Regex"], line)) is not None and hit.groups():
                found.append(
                    {
                        "MetricName": definition["Name"],
                        "Value": float(hit[1]),
                        "Timestamp": naming.timestamp(context, at),
                    }
                )
                break
    return found


def _pool(job: dict[str, Any], seen: Seen, now: float) -> str:
    kept = job["request"]["ResourceConfig"]["KeepAlivePeriodInSeconds"]
    return "Available" if now < seen.now.at + kept else "Terminated"


def run_id(job: dict[str, Any]) -> str:
    """The id of the MLflow run that has the job's metrics."""
    return hashlib.sha256(f"{job['arn']}/{job['created']}".encode()).hexdigest()[:32]


def experiment_id(job: dict[str, Any]) -> str:
    """The id of the MLflow experiment, from the resource and the experiment's name."""
    config = job["request"]["MlflowConfig"]
    name = f"{config['MlflowResourceArn']}/{config.get('MlflowExperimentName') or job['id']}"
    return str(int(hashlib.sha256(name.encode()).hexdigest()[:6], 16))


def _serverless(job: dict[str, Any], seen: Seen) -> dict[str, Any]:
    course = job["course"]
    each = max(1, int(course["steps"] / max(1.0, course["epochs"])))
    progress = {
        "TotalStepCountPerEpoch": each, "CurrentStep": seen.step % each if seen.step < course["steps"] else each,
        "CurrentEpoch": min(int(course["epochs"]), 1 + seen.step // each), "MaxEpoch": int(course["epochs"]),
    }  # fmt: skip
    found: dict[str, Any] = {"ProgressInfo": progress}
    if job["request"].get("MlflowConfig") and seen.has_trained:
        found["MlflowDetails"] = {"MlflowRunId": run_id(job), "MlflowExperimentId": experiment_id(job)}
    if seen.now.status == "Completed":
        found["BillableTokenCount"] = int(course["rows"] * TOKENS_PER_ROW * course["epochs"])
        if job.get("package"):
            found["OutputModelPackageArn"] = job["package"]
    return found


def list_(context: EmulatorContext, call: Call) -> Reply:
    """ListTrainingJobs."""
    views = []
    lag = context.faults.condition("list_lag", call.name)
    for job in context.store.all(KIND, naming.shelf(call)):
        if lag and job["created"] > call.now - lag.seconds:
            continue
        seen = _shown(context, job, call.now)
        entry = {
            "TrainingJobName": job["id"],
            "TrainingJobArn": job["arn"],
            "CreationTime": naming.timestamp(context, job["created"]),
            "LastModifiedTime": naming.timestamp(context, seen.now.at),
        }
        entry |= {key: word for key, word in _standing(context, call, seen).items() if key != "FailureReason"}
        if seen.has_ended:
            entry["TrainingEndTime"] = naming.timestamp(context, seen.now.at)
        views.append(entry)
    return Reply(body=listing.page(
        call, views, under="TrainingJobSummaries", name="TrainingJobName", status="TrainingJobStatus",
    ))  # fmt: skip


def stop(context: EmulatorContext, call: Call) -> Reply:
    """StopTrainingJob: SIGTERM, and after 120 s SIGKILL; saved files are uploaded.

    For an ended job, the error is the one that users report ("The request was rejected because the training job
    is in status Completed", aws/sagemaker-python-sdk issues, seen 2026-11-21).
    """
    with context.store.alone():
        job = find(context, call, call.body["TrainingJobName"])
        seen = _shown(context, job, call.now)
        if seen.has_ended:
            message = f"The request was rejected because the training job is in status {seen.now.status}."
            raise shapes.refused(message)
        if seen.now.status != "Stopping":
            context.sagemaker.stop(context, job, call.now)
            context.store.save(KIND, naming.shelf(call), job)
    return Reply(body=b"", content_type="application/x-amz-json-1.1")


def delete(context: EmulatorContext, call: Call) -> Reply:
    """DeleteTrainingJob: deletes an ended job; its name can be used again."""
    with context.store.alone():
        job = find(context, call, call.body["TrainingJobName"])
        seen = _shown(context, job, call.now)
        if not seen.has_ended:
            message = f"The training job {job['id']} is {seen.now.status} and cannot be deleted."
            raise shapes.failed("ResourceInUse", message)
        context.store.remove(KIND, naming.shelf(call), job["id"])
        naming.unlabel(context, call, job["arn"])
    return Reply(body=b"", content_type="application/x-amz-json-1.1")
