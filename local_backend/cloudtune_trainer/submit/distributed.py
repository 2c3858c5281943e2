"""The group of processes of a JobSpec for cloudtune's own trainer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem
from cloudtune.methods import METHODS
from cloudtune_trainer.adapters import MOVES_BASE
from cloudtune_trainer.distributed_spec import SHARDED_ADAPTERS, SHARDED_TASKS
from cloudtune_trainer.submit.adapter_problems import DEFAULT_ADAPTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices


def processes_of(spec: JobSpec) -> int:
    """The number of processes over all nodes: one per node unless the spec says otherwise."""
    given = spec.distributed
    return 1 if given is None else given.processes or given.nodes or 1


def settings(spec: JobSpec, choices: Choices) -> dict[str, Any]:
    """The part ``distributed`` of the trainer's spec; nothing for a single process that the spec does not ask for."""
    given = spec.distributed
    if given is None:
        return {}
    picked = {
        "strategy": choices.pick("distributed.strategy", given.strategy, "ddp"),
        "processes": choices.pick("distributed.processes", given.processes, processes_of(spec)),
    }
    if given.nodes is not None:
        picked["nodes"] = choices.pick("distributed.nodes", given.nodes, 1)
    return {"distributed": picked}


def gpu_problems(spec: JobSpec, gpus: int, slots: int | None, backend: str) -> Iterator[Problem]:
    """More processes than a job can get GPUs: each process takes a slot. Without GPUs they share the CPU."""
    count, usable = processes_of(spec), min(gpus, slots or gpus)
    if 0 < usable < count:
        limit = f"the machine has {gpus}" if usable == gpus else f"backends.{backend}.slots is {slots}"
        message = f"{count} processes require as many GPUs, and {limit}"
        fix = f"use at most {usable}, or `overrides.{backend}.device: cpu`"
        yield Problem(code="range", field="distributed.processes", message=message, fix=fix)


def group_problems(spec: JobSpec, batch: int) -> Iterator[Problem]:
    """Settings that a group of processes cannot carry out with that ``batch_size``."""
    yield from _sharding_problems(spec)
    count = processes_of(spec)
    if count > batch:
        message = f"{count} processes cannot share a batch of {batch}: some would have no work"
        yield Problem(code="range", field="distributed.processes", message=message,
                      fix=f"use at most {batch}, or raise hyperparameters.batch_size")  # fmt: skip


def _sharding_problems(spec: JobSpec) -> Iterator[Problem]:
    """What ``fsdp`` does not train."""
    if spec.distributed is None or spec.distributed.strategy != "fsdp":
        return
    adapter, method = spec.adapter, spec.method.name
    kind = adapter.type if adapter is not None else DEFAULT_ADAPTER
    reasons = []
    if METHODS[method].task not in SHARDED_TASKS:
        reasons.append(f"the method {method}")
    if kind not in SHARDED_ADAPTERS:
        reasons.append(f"a {kind} adapter")
    if adapter is not None and adapter.init in MOVES_BASE:
        reasons.append(f"adapter.init {adapter.init}")
    if spec.layers is not None:
        reasons.append("a schedule of layers")
    if spec.hyperparameters.precision == "fp16":
        reasons.append("fp16")
    if reasons:
        message = f"fsdp does not train with {', '.join(reasons)}"
        fix = f"use ddp; or sft or cpt with {' or '.join(SHARDED_ADAPTERS)}, in fp32 or bf16"
        yield Problem(code="no_sharding", field="distributed.strategy", message=message, fix=fix)
    if processes_of(spec) == 1:
        message = "a single process has nobody to share the weights with"
        yield Problem(code="no_effect", field="distributed.strategy", message=message, severity="warning",
                      fix="set distributed.processes")  # fmt: skip
