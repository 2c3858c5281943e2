"""A program that fine-tunes a model on Bedrock. Its client is a parameter, so tests need no account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune import Client, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune import Job


def submit_nightly(client: Client, rows: Path) -> Job:
    """Fine-tune on last night's rows. The same rows always give the same job."""
    spec = JobSpec.parse(
        {
            "name": "nightly",
            "model": "amazon.nova-micro-v1:0:128k",
            "data": {"train": str(rows)},
            "hyperparameters": {"epochs": 2, "learning_rate": 1e-5},
        }
    )
    return client.submit(spec)
