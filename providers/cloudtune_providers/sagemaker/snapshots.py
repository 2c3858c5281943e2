"""Snapshots of jobs that run cloudtune's trainer, with more detail than other jobs. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.state import JobProblem, JobSnapshot, JobState, Progress
from cloudtune_providers.sagemaker.log_lines import LIMITED

if TYPE_CHECKING:
    from collections.abc import Mapping

_REASON = re.compile(r"AlgorithmError: (?P<code>[a-z_]+): (?P<message>.*?)(?:, exit code: \d+)?", re.DOTALL)


def as_sagemaker(job: JobSnapshot) -> JobSnapshot:
    """Return the snapshot with the trainer's progress and error, and distinguish a reached limit from success."""
    kept = _last_figures(job.raw)
    changes: dict[str, Any] = {}
    if kept and job.progress.step is None:
        changes["progress"] = Progress(
            step=_whole(kept.get("progress:step")), total_steps=_whole(kept.get("progress:total_steps")),
            epoch=kept.get("progress:epoch"),
        )  # fmt: skip
    if job.state is JobState.SUCCEEDED and kept.get(LIMITED):
        changes["state"] = JobState.EXPIRED
        message = "the trainer stopped at the time limit and saved the best model so far"
        changes["problem"] = JobProblem(message=message, code="stopped_by_limit", hint="raise limits.max_time")
    if job.problem is not None and (found := _REASON.fullmatch(job.problem.message)):
        message, _, hint = found["message"].partition("\n")
        changes["problem"] = JobProblem(message=message, code=found["code"], hint=hint.strip() or job.problem.hint)
    return msgspec.structs.replace(job, **changes) if changes else job


def _last_figures(job: Mapping[str, Any]) -> dict[str, float]:
    return {str(entry["MetricName"]): float(entry["Value"]) for entry in job.get("FinalMetricDataList") or ()}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
