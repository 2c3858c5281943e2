"""The part ``distributed`` of ``spec.json``: the group of processes that train one model. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cloudtune_trainer.adapters import MOVES_BASE
from cloudtune_trainer.spec_trained import Layers

if TYPE_CHECKING:
    from cloudtune_trainer.run_spec import RunSpec

SHARDED_TASKS = ("causal_lm",)
"""Tasks that ``fsdp`` trains."""
SHARDED_ADAPTERS = ("full", "lora")
"""Adapters that ``fsdp`` trains."""


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


def sharding_faults(spec: RunSpec, task: str) -> list[str]:
    """What ``fsdp`` does not train."""
    if spec.distributed.strategy != "fsdp":
        return []
    found = []
    if task not in SHARDED_TASKS:
        found.append(f"distributed.strategy: the weights are not shared among processes for {spec.method}")
    if spec.adapter.type not in SHARDED_ADAPTERS or spec.adapter.init in MOVES_BASE:
        found.append(f"distributed.strategy: the weights are not shared with this {spec.adapter.type} adapter")
    if spec.layers != Layers():
        found.append("distributed.strategy: the weights are not shared with a schedule of layers")
    if spec.hyperparameters.precision == "fp16":
        found.append("distributed.strategy: the weights are not shared in fp16; use bf16")
    return found
