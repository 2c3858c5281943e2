"""Converts Bedrock's responses to cloudtune's types. Pure. Added or missing fields are accepted."""

from __future__ import annotations

import contextlib
import csv
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from cloudtune.state import (
    JobProblem,
    JobRef,
    JobSnapshot,
    JobState,
    Metric,
    TunedModel,
    reported_number,
    reported_step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = "bedrock"
STATES: dict[str, JobState] = {
    # botocore 1.44.5, bedrock/2023-04-20: ModelCustomizationJobStatus and ModelImportJobStatus.
    "InProgress": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Stopping": JobState.CANCELLING,
    "Stopped": JobState.CANCELLED,
}
REGISTRATION_STATES: dict[str, JobState] = {
    # The same model's ModelStatus: the state of a model from CreateCustomModel is the state of its job.
    "Creating": JobState.RUNNING,
    "Active": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
}
IMPORT = "import/"
"""Prefix of the name in the reference of an import job."""
REGISTRATION = "registration/"
"""Prefix of the name in the reference of a registered model: the model is its own job."""
REGISTERED = "IMPORTED"
"""The customization type of such models; the documentation writes it in lowercase."""
BASE_TAG, ADAPTER_TAG = "cloudtune:base", "cloudtune:adapter"
"""A registered model's base model and kind of weights, which Get does not return."""
_PHASES = (("trainingDetails", "training"), ("dataProcessingDetails", "processing the rows"),
           ("validationDetails", "validating the rows"))  # fmt: skip
_FIGURES = {"training_loss": "loss", "validation_loss": "loss", "perplexity": "perplexity"}
Split = Literal["train", "validation"]


def to_snapshot(job: Mapping[str, Any], scope: str) -> JobSnapshot:
    """Translate a customization job of Get or List to a snapshot."""
    word = str(job.get("status") or "")
    state = STATES.get(word, JobState.UNKNOWN)
    detail, is_waiting = _phase(job.get("statusDetails") or {})
    if state is JobState.RUNNING and is_waiting:
        state = JobState.PREPARING
    base = model_of(str(job.get("baseModelArn") or ""))
    return _snapshot(job, JobRef(NAME, scope, str(job["jobName"])), state, word, base, detail)


def to_import_snapshot(job: Mapping[str, Any], scope: str) -> JobSnapshot:
    """An import job as a snapshot. The imported model is its own base model."""
    word = str(job.get("status") or "")
    ref = JobRef(NAME, scope, f"{IMPORT}{job['jobName']}")
    return _snapshot(job, ref, STATES.get(word, JobState.UNKNOWN), word, str(job.get("importedModelName") or ""))


def is_registered(model: Mapping[str, Any]) -> bool:
    """Return whether a custom model of Get or List was created by CreateCustomModel.

    The type can be missing; the ARN contains it too (botocore 1.44.5, ModelArn).
    """
    kind = str(model.get("customizationType") or "").upper()
    return kind == REGISTERED or (not kind and ":custom-model/imported" in str(model.get("modelArn")))


def to_registration_snapshot(model: Mapping[str, Any], scope: str) -> JobSnapshot:
    """Translate a registered model of Get or List to the job that created it. Its end time is unknown."""
    word = str(model.get("modelStatus") or "")
    ref = JobRef(NAME, scope, f"{REGISTRATION}{model['modelName']}")
    base = model_of(str(model.get("baseModelArn") or ""))
    return _snapshot(model, ref, REGISTRATION_STATES.get(word, JobState.UNKNOWN), word, base)


def _snapshot(
    response: Mapping[str, Any], ref: JobRef, state: JobState, word: str, model: str, detail: str = ""
) -> JobSnapshot:
    return JobSnapshot(
        ref=ref,
        state=state,
        native_state=word,
        name=ref.id.rpartition("/")[2],
        model=model,
        detail=detail if not state.is_terminal else "",
        created_at=utc(response.get("creationTime")),
        finished_at=utc(response.get("endTime")) if state.may_have_ended else None,
        problem=_problem(response) if state is JobState.FAILED else None,
        raw=plain(response),
    )


def _phase(details: Mapping[str, Any]) -> tuple[str, bool]:
    """The current phase, and whether training has not started."""
    words = {name: str((details.get(name) or {}).get("status") or "") for name, _ in _PHASES}
    is_waiting = words["trainingDetails"] == "NotStarted"
    for name, text in _PHASES:
        if words[name] == "InProgress":
            return text, is_waiting
    return "", is_waiting


def _problem(job: Mapping[str, Any]) -> JobProblem:
    said = str(job.get("failureMessage") or "")
    if not said:  # lists omit the reason
        return JobProblem(message="lists do not include the reason", hint="run `cloudtune show JOB` to see it")
    hint = None
    if "Input data" in said or "format" in said.lower():
        hint = "fix the rows that the message names; `cloudtune data check` finds more"
    return JobProblem(message=said, hint=hint)


def model_of(arn: str) -> str:
    """A base model's id, from its ARN; a custom model is named by its ARN, the only name with the account."""
    _, found, tail = arn.partition(":foundation-model/")
    return tail if found else arn


def to_model(job: Mapping[str, Any], ref: JobRef, scope: str) -> TunedModel | None:
    """The model of an ended customization job, if any."""
    arn = job.get("outputModelArn")
    if not arn or STATES.get(str(job.get("status"))) is not JobState.SUCCEEDED:
        return None
    base = model_of(str(job.get("baseModelArn") or ""))
    return TunedModel(
        id=str(arn), base=base, backend=NAME, scope=scope, ref=ref, call="api", needs_deploy=True, raw=plain(job)
    )


def to_imported_model(job: Mapping[str, Any], ref: JobRef, scope: str) -> TunedModel | None:
    """The model of an ended import job. It needs no deployment."""
    arn = job.get("importedModelArn")
    if not arn or STATES.get(str(job.get("status"))) is not JobState.SUCCEEDED:
        return None
    name = str(job.get("importedModelName") or "")
    return TunedModel(id=str(arn), base=name, backend=NAME, scope=scope, ref=ref, call="api", raw=plain(job))


def to_registered_model(
    model: Mapping[str, Any], tags: Mapping[str, str], ref: JobRef, scope: str
) -> TunedModel | None:
    """A registered model that is active."""
    if REGISTRATION_STATES.get(str(model.get("modelStatus"))) is not JobState.SUCCEEDED:
        return None
    base = model_of(str(model.get("baseModelArn") or "")) or tags.get(BASE_TAG, "")
    return TunedModel(
        id=str(model["modelArn"]), base=base, backend=NAME, scope=scope, ref=ref, call="api", needs_deploy=True,
        adapter=tags.get(ADAPTER_TAG), raw=plain(model),
    )  # fmt: skip


# -- metrics ---------------------------------------------------------------------------------------------------------


def metrics_of(text: str, split: Split) -> Iterator[Metric]:
    """The metrics of one of the result files. Unknown columns and incomplete rows are skipped.

    docs.aws.amazon.com/bedrock/latest/userguide/model-customization-analyze.html, seen 2026-11-21.
    """
    for row in _rows(text):
        step = reported_step(row.get("step_number"))
        values = {metric: n for name, metric in _FIGURES.items() if (n := reported_number(row.get(name))) is not None}
        if step is not None and values:
            epoch = reported_number(row.get("epoch_number"))
            yield Metric(cursor=f"{step:09}/{split}", step=step, values=values, split=split, epoch=epoch)


def _rows(text: str) -> Iterator[dict[str, Any]]:
    # a row that is not CSV ends the file: the rows before it are valid
    with contextlib.suppress(csv.Error):
        yield from csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))


def utc(value: Any) -> datetime | None:
    """The SDK's time in UTC; None for any other value."""
    return value.astimezone(UTC) if isinstance(value, datetime) else None


def plain(value: Any) -> Any:
    """The response as JSON types, without the SDK's metadata of the connection."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
