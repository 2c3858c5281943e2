"""A small program that trains with cloudtune. `test_training_service.py` tests it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudtune import Client, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtune.backend import Backend


def train_support_bot(backend: Backend, tickets: Path, ledger: str) -> str:
    """Fine-tune a model on yesterday's tickets, wait for it, and return its name. Running it twice trains once."""
    spec = JobSpec.parse(
        {
            "name": "support-bot",
            "model": "gpt-4.1-mini-2025-04-14",
            "data": {"train": str(tickets)},
            "hyperparameters": {"epochs": 2},
            "tags": {"team": "support"},
        }
    )
    return Client(backend, ledger=ledger).submit(spec).wait(timeout=86_400).id
