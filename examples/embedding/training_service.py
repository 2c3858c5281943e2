"""A few lines of somebody's own program that trains with cloudtune: what `test_training_service.py` tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune import Client, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.backend import Backend


def train_support_bot(backend: Backend, tickets: Path, ledger: str) -> str:
    """Tune a model on yesterday's tickets, wait for it, and return its name. Run twice, it trains once."""
    spec = JobSpec.model_validate(
        {
            "name": "support-bot",
            "model": "gpt-4.1-mini-2025-04-14",
            "data": {"train": str(tickets)},
            "hyperparameters": {"epochs": 2},
            "tags": {"team": "support"},
        }
    )
    return Client(backend, ledger=ledger).submit(spec).wait(timeout=86_400).id
