"""Locks on files, for back ends. Standard library only."""

from __future__ import annotations

from cloudtune_trainer.locks import is_held, take_lock

__all__ = ["is_held", "take_lock"]
