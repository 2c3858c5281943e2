"""A program that tunes a model on Bedrock, written so that it can be tested without an account: its client comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune import Client, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune import Job


def submit_nightly(client: Client, rows: Path) -> Job:
    """Tune on last night's rows. Called twice with the same rows it is the same job."""
    spec = JobSpec.model_validate(
        {
            "name": "nightly",
            "model": "amazon.nova-micro-v1:0:128k",
            "data": {"train": str(rows)},
            "hyperparameters": {"epochs": 2, "learning_rate": 1e-5},
        }
    )
    return client.submit(spec)
