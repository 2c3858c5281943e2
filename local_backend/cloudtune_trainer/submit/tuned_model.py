"""The model that a run produced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.errors import InvalidRequest
from cloudtune.state import JobRef, TunedModel
from cloudtune_trainer.submit.run_folder import TUNED, read_json

if TYPE_CHECKING:
    from cloudtune_trainer.worker.run import Run, RunStatus


def tuned_model(ref: JobRef, run: Run, run_status: RunStatus) -> TunedModel:
    """The run's model. A job that was stopped by a limit can also have one. Raises InvalidRequest."""
    tuned = read_json(run.model / TUNED)
    if not isinstance(tuned, dict):
        hint = None
        if run_status.is_final and any(run.checkpoints.glob("step-*")):
            hint = "it has checkpoints: `cloudtune resume` continues from the newest valid one"
        raise InvalidRequest(f"{ref} has no model; its state is {run_status.state}", hint=hint)
    files = sorted(str(file.relative_to(run.model)) for file in run.model.rglob("*") if file.is_file())
    return TunedModel(
        id=run.slug,
        base=str(run_status.job.get("model") or tuned["base"]["path"]),
        backend=ref.backend,
        scope=ref.scope,
        ref=ref,
        call="in_process",
        adapter=tuned["adapter"],
        uri=str(run.model),
        files=tuple(files),
        raw=tuned,
    )
