"""The group of processes of a JobSpec for cloudtune's own trainer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem

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


def group_problems(spec: JobSpec) -> Iterator[Problem]:
    """Settings that a group of processes cannot carry out."""
    count, batch = processes_of(spec), spec.hyperparameters.batch_size
    if batch is not None and count > batch:
        message = f"{count} processes cannot share a batch of {batch}: some would have no work"
        yield Problem(code="range", field="distributed.processes", message=message, fix=f"use at most {batch}")
