"""The gradients of one optimizer step, computed in parts (micro-batches).

After an out-of-memory error, the step is computed again in smaller parts. The loss and the gradients stay the same,
because a part's loss is a sum that is divided by the count of the whole step.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from cloudtune_trainer.batches import parts_of
from cloudtune_trainer.meters import added
from cloudtune_trainer.problems import TrainingProblem, recognized
from cloudtune_trainer.tasks.task import ComparesRows, OnlineTask, UsesStepMean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloudtune_trainer.job import Job

T = TypeVar("T")
_HINT = "Use a smaller max_length, gradient_checkpointing, or an adapter instead of full training."


@dataclass(frozen=True)
class StepSums:
    """The sums of one optimizer step over all processes."""

    loss: float
    metric_sums: list[float]
    count: int
    tokens: int


def step_gradients(job: Job, samples: Any, sequences: Sequence[tuple[int, ...]]) -> StepSums:
    """Compute the gradients of these sequences. Raises ``out_of_memory`` if a single sequence does not fit."""
    devices = job.devices
    own = devices.share(sequences)
    batches = _batches(job, samples, own)
    count = devices.total(sum(batch.count for batch in batches))
    idle = devices.rounds(len(batches)) - len(batches)
    is_prepared = False

    def compute() -> tuple[float, list[float]]:
        nonlocal is_prepared
        if not is_prepared:
            set_step_mean(job, batches)
            set_step_rows(job, batches, alone=len(batches) == 1)
            # several processes prepare together, and the result does not depend on the parts
            is_prepared = devices.world > 1
        found = _sums(job, batches, count)
        for _ in range(idle):  # the others need this process's part of the weights
            _sums(job, _batches(job, samples, sequences[:1])[:1], count, weight=0.0)
        return found

    before = job.progress.sequences_at_once
    while (sums := attempt(job, _largest(job, own), compute)) is None:
        job.optimizer.zero_grad(set_to_none=True)
        batches = _batches(job, samples, own)
    loss, metric_sums = sums
    figures = (loss, sum(batch.tokens for batch in batches), job.progress.sequences_at_once != before)
    loss, tokens, smaller, *metric_sums = devices.totals(*figures, *metric_sums)
    if smaller:
        _agree_on_parts(job)
    return StepSums(loss, metric_sums, count, int(tokens))


def _agree_on_parts(job: Job) -> None:
    """Use the smallest limit of any process in all of them: they divide the rows of an evaluation by it."""
    if job.devices.world > 1:
        own = torch.tensor([[job.progress.sequences_at_once or math.inf]], dtype=torch.float64)
        job.progress = replace(job.progress, sequences_at_once=int(job.devices.rows(own).min()))


def attempt(job: Job, largest: int, compute: Callable[[], T]) -> T | None:
    """The result, or None after an out-of-memory error: the caller then tries again with fewer sequences at once.

    Raises:
        TrainingProblem: ``out_of_memory``, if ``largest``, the present number of sequences at once, is 1, or if the
            processes share the weights: the others have gone on to another layer, and cannot compute this one again.

    """
    try:
        return compute()
    except Exception as error:
        problem = recognized(error)
        if problem is None or problem is error or problem.code != "out_of_memory":
            raise
        step = job.progress.step + 1
        if largest == 1 or job.devices.sharded:
            how_many = "a single sequence" if largest == 1 else f"{largest} sequences"
            what = f"{problem.message} (step {step}, with {how_many} at once)"
            raise TrainingProblem("out_of_memory", what, _HINT if largest == 1 else problem.hint) from error
        message = problem.message
    # the error, which holds the tensors of the failed part, is gone here
    job.progress = replace(job.progress, sequences_at_once=largest // 2)
    gc.collect()
    if job.devices.device.type == "cuda":
        torch.cuda.empty_cache()
    job.report.warning(
        f"step {step} computes at most {largest // 2} sequences at once instead of {largest}, because of {message}; "
        f"the batch of {job.spec.hyperparameters.batch_size} and its gradient stay the same",
        step=step, sequences_at_once=largest // 2,
    )  # fmt: skip
    return None


def at_once(job: Job) -> int:
    """The largest number of sequences that one process computes at once."""
    hyper = job.spec.hyperparameters
    usual = max(1, hyper.batch_size // hyper.gradient_accumulation_steps)
    if isinstance(job.task, OnlineTask):
        usual = job.task.at_once
    return min(usual, job.progress.sequences_at_once or usual)


def _batches(job: Job, samples: Any, own: Sequence[tuple[int, ...]]) -> list[Any]:
    parts = parts_of(own, _parts(job, own))
    return [job.task.collate(samples, [i for sequence in part for i in sequence]) for part in parts]


def _parts(job: Job, own: Sequence[Any]) -> int:
    usual, limit = job.spec.hyperparameters.gradient_accumulation_steps, job.progress.sequences_at_once
    return usual if limit is None else max(usual, -(-len(own) // limit))


def _largest(job: Job, own: Sequence[Any]) -> int:
    return max((len(part) for part in parts_of(own, _parts(job, own))), default=1)


def _sums(job: Job, batches: Sequence[Any], count: int, weight: float = 1.0) -> tuple[float, list[float]]:
    """The sums of the loss and of the metrics in this process; adds the gradients."""
    loss, metric_sums = 0.0, [0.0] * job.task.metric_sums
    for batch in batches:
        with job.devices.autocast():
            sums = job.task.forward(job.model, batch.to(job.devices.device))
        # the mean is over all tokens, or pairs, of the step, so that its parts add up to one large batch
        job.devices.backward(sums.loss * (weight / count))
        loss += sums.loss.item()
        metric_sums = added(metric_sums, sums.metric_sums.tolist())
    return loss, metric_sums


def set_step_rows(job: Job, batches: Iterable[Any], *, alone: bool) -> None:
    """Give the task the values of all rows of these batches, if its loss compares them.

    ``alone``: this process has one batch. In the only process, its forward pass has all rows.
    """
    task, devices, was_training = job.task, job.devices, job.model.training
    if not isinstance(task, ComparesRows):
        return
    if alone and devices.world == 1:
        task.set_step(None, devices.device)
        return
    found: list[torch.Tensor] = []
    job.model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                with devices.autocast():
                    found.append(task.row_values_of(job.model, batch.to(devices.device)))
    finally:
        job.model.train(was_training)
    # a process without rows learns from the others how many values a row has
    values, processes = devices.totals(found[0].shape[1] if found else 0, bool(found))
    own = [torch.zeros(0, round(values / processes), dtype=torch.float64), *found]
    task.set_step(devices.rows(torch.cat(own)), devices.device)


def set_step_mean(job: Job, batches: Iterable[Any]) -> None:
    """Compute the mean that the task's loss needs, if it needs one, over these batches of all processes."""
    task, devices, was_training = job.task, job.devices, job.model.training
    if not isinstance(task, UsesStepMean):
        return
    total, count = 0.0, 0
    job.model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                with devices.autocast():
                    total += task.step_sum(job.model, batch.to(devices.device)).item()
                count += batch.count
    finally:
        job.model.train(was_training)
    total, everywhere = devices.totals(total, count)
    task.step_mean = total / max(1.0, everywhere)
