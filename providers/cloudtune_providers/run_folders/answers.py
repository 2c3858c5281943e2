"""Uses the models of jobs in this process, and says how long a job ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cost import Usage
from cloudtune_trainer.submit import inference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cloudtune.optional import GenerateOptions, Input, Prompt
    from cloudtune.prompts import Passage
    from cloudtune.state import Generation, JobSnapshot, Likelihood, Prediction, TunedModel
    from cloudtune_providers.run_folders.jobs import RunFolderJobs


class Answers:
    """The optional abilities of a back end whose models answer here: `cloudtune.optional` describes them."""

    def __init__(self, jobs: RunFolderJobs) -> None:
        self.jobs = jobs
        self._answering = inference.Answering()

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
