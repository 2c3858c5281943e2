"""The part ``distributed`` of ``spec.json``: the group of processes that train one model. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """The group of processes that train one model. A launcher that starts them itself decides their number."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """``fsdp``: the processes share the weights, the gradients and the optimizer's state."""
    processes: int | None = None
    """Over all nodes. None: one for each GPU."""
    nodes: int = 1


def distributed_faults(group: Distributed) -> list[str]:
    """Checks beyond the types."""
    if group.nodes < 1 or (group.processes is not None and group.processes < 1):
        return ["distributed.processes and distributed.nodes must be at least 1"]
    if (group.processes or 0) % group.nodes:
        return ["distributed.processes must be a multiple of distributed.nodes"]
    return []
