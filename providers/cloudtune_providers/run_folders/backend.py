"""What back ends with run folders have in common: reading and deleting jobs, and using their models in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cost import Usage
from cloudtune_trainer.submit import inference, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cloudtune.data.checks.targets import Target
    from cloudtune.optional import GenerateOptions, Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.spec import JobSpec
    from cloudtune.state import (
        Checkpoint,
        Event,
        Generation,
        JobRef,
        JobSnapshot,
        Likelihood,
        Metric,
        Prediction,
        TunedModel,
    )  # fmt: skip
    from cloudtune_providers.run_folders.jobs import RunFolderJobs


class RunFolderBackend:
    """The part of `cloudtune.backend.Backend` and of its optional protocols that needs only the run folders."""

    def __init__(self, jobs: RunFolderJobs) -> None:
        self.jobs = jobs
        self._answering = inference.Answering()

    @classmethod
    def target_for(cls, model: str | None, method: str | None = None) -> Target:
        """See `DataRules`."""
        return rows.target_for(model)

    def data_target(self, spec: JobSpec) -> Target:
        """See `DataRules`."""
        return rows.target_of(spec)

    def get(self, ref: JobRef) -> JobSnapshot:
        """The job's current state. Raises JobNotFound."""
        return self.jobs.get(ref)

    def get_many(self, refs: Sequence[JobRef]) -> Mapping[JobRef, JobSnapshot]:
        """The existing jobs, with one question for each folder."""
        return self.jobs.get_many(refs)

    def events(self, ref: JobRef, after: str | None = None) -> Sequence[Event]:
        """The events after that line."""
        return self.jobs.events(ref, after)

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        """The metrics after that line."""
        return self.jobs.metrics(ref, after)

    def checkpoints(self, ref: JobRef) -> Sequence[Checkpoint]:
        """Complete checkpoints, oldest first."""
        return self.jobs.checkpoints(ref)

    def delete(self, ref: JobRef) -> None:
        """Delete an ended job with its checkpoints and its model. A missing job counts as deleted."""
        self.jobs.delete(ref)

    def model(self, ref: JobRef) -> TunedModel:
        """The job's model. Raises InvalidRequest while there is none."""
        return self.jobs.model(ref)

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        """Answers in the order of the prompts."""
        return self._answering.generate(self.jobs.models.here(model), prompts, options)

    def why_no_tools(self, model: TunedModel) -> str:
        """See `ToolCaller`. A chat template that does not show tools is found at the first question."""
        return ""

    def score(self, model: TunedModel, passages: Sequence[Passage], *, base: bool = False) -> Iterator[Likelihood]:
        """See `Scorer`."""
        return self._answering.score(self.jobs.models.here(model), passages, base=base)

    def predict(self, model: TunedModel, inputs: Sequence[Input]) -> Iterator[Prediction]:
        """Predictions in the order of the inputs."""
        return self._answering.predict(self.jobs.models.here(model), inputs)

    def export(self, model: TunedModel, to: Path, *, merged: bool = False) -> Sequence[Path]:
        """Export the adapter, or the merged weights, to a new folder."""
        return inference.export(self.jobs.models.here(model), to, merged=merged)


def seconds_used(job: JobSnapshot) -> Usage:
    """The time from the trainer's start to its end, pauses included."""
    if job.started_at is None or job.finished_at is None:
        return Usage(seconds=0.0, note="it never started")
    return Usage(seconds=max(0.0, (job.finished_at - job.started_at).total_seconds()))
