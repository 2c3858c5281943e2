"""The port of a process group, for back ends that start its processes. Standard library only."""

from __future__ import annotations

from cloudtune_trainer.ports import hold_port

__all__ = ["hold_port"]
