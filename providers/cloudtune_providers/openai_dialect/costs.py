"""The cost of a job in OpenAI's dialect: exact if its tokens were counted, else between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune.cost import CostEstimate, Usage
from cloudtune.pricing import by_tokens
from cloudtune.state import JobState
from cloudtune_providers.openai_dialect.model_names import base_of

if TYPE_CHECKING:
    from cloudtune.catalog import Catalog
    from cloudtune.plan import DataReport
    from cloudtune.spec import JobSpec
    from cloudtune.state import JobSnapshot


def estimate(spec: JobSpec, data: DataReport, catalog: Catalog, backend: str, tier: str = "") -> CostEstimate:
    """The cost of training by the catalog's price. Validation tokens are free."""
    epochs = spec.overrides.get(backend, {}).get("n_epochs") or spec.hyperparameters.epochs
    return by_tokens(
        catalog, base_of(spec.model_for(backend) or ""), spec.method.name, data.splits["train"],
        epochs=None if epochs is None or epochs == "auto" else float(epochs), tier=tier,
    )  # fmt: skip


def usage(job: JobSnapshot) -> Usage:
    """The trained tokens, which the vendor reports for jobs that succeeded."""
    if job.progress.tokens is not None:
        return Usage(tokens=job.progress.tokens)
    if job.state is JobState.SUCCEEDED:
        return Usage(note="the vendor reports no trained tokens for this job")
    return Usage(note=f"the vendor reports no trained tokens for a job that is {job.state}; see its invoice")
