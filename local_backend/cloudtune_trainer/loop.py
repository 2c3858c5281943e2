"""The training loop, shared by every method and adapter. Differences between methods are in ``tasks``.

Before every optimizer step it checks for requests; after it, it logs metrics, evaluates and saves. A step is a function
of its number, the weights, the optimizer's state and the random state. A checkpoint holds them all, so that a resumed
run makes exactly the same steps as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer import checkpoints
from cloudtune_trainer.batches import chunks_of
from cloudtune_trainer.meters import Clock, Meter, added
from cloudtune_trainer.micro_batches import at_once, attempt, set_step_mean, set_step_rows, step_gradients
from cloudtune_trainer.monitor import LearningMonitor
from cloudtune_trainer.optimizer import rate_at, set_rate
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tasks.task import MeasuresRows, OnlineTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloudtune_trainer.batches import Schedule
    from cloudtune_trainer.job import Job
    from cloudtune_trainer.micro_batches import StepSums
    from cloudtune_trainer.samples import Samples


def train(job: Job) -> str:  # noqa: C901 - one flat loop reads better than its pieces
    """Run to the end or to the first reason to stop. Returns the final state; the last checkpoint is saved."""
    spec, report, devices, schedule = job.spec, job.report, job.devices, job.schedule
    hyper = spec.hyperparameters
    clock, meter, monitor = Clock(job.progress.seconds), Meter(), _monitor(job)
    total = schedule.total_steps
    started = job.progress.step
    saved = started or None
    outcome = "succeeded"
    job.model.train()
    report.state("training", step=started, total_steps=total, epoch=round(job.epoch, 6), tokens=job.progress.tokens)
    if started and _owes_evaluation(job) and _evaluate(job, clock):
        saved = _save(job, clock, best=True)

    while job.progress.step < total and not job.progress.stopped_early:
        # --- requests from outside
        request = devices.agree(_request(job, clock))
        if request == "pause":
            with clock.standing():
                if saved != job.progress.step:
                    saved = _save(job, clock, best=False)
                _stand(job)
            continue
        if request is not None:
            outcome = request
            break

        # --- one optimizer step
        meter.begin()
        step = job.progress.step
        rate = rate_at(step, total, hyper)
        set_rate(job.optimizer, rate)
        trained = job.layers.trained_at(step, report)
        samples, sequences = job.train, schedule.sequences_of(step)
        if isinstance(job.task, OnlineTask):
            chosen = [i for sequence in sequences for i in sequence]
            samples = _made(job, samples, chosen, step=step)
            sequences = [(i,) for i in range(len(samples))]
        sums = step_gradients(job, samples, sequences)
        _check_finite(sums.loss / sums.count, "loss", step)
        job.layers.discard_other_gradients()
        norm = devices.finish_gradients(trained, hyper.max_grad_norm, job.optimizer)
        if devices.scaler is None:
            _check_finite(norm, "gradient norm", step)
        devices.step(job.optimizer)
        job.optimizer.zero_grad(set_to_none=True)
        job.progress = replace(
            job.progress, step=step + 1, tokens=job.progress.tokens + sums.tokens, stage=job.layers.stage_at(step)
        )
        meter.end(sums.loss, sums.metric_sums, sums.count, sums.tokens)
        _watch(job, monitor, sums, norm)

        # --- measure, evaluate, save
        step += 1
        if step == started + 1:
            report.event("message", f"first optimizer step done: loss {sums.loss / sums.count:.4f}", step=step)
        if step % spec.log_every == 0 or step == total:
            _log(job, meter, rate, norm)
        report.progress(
            step=step, epoch=round(job.epoch, 6), tokens=job.progress.tokens, eta_s=meter.left(total - step)
        )
        better = job.validation is not None and _due(spec.validation.every, step, schedule) and _evaluate(job, clock)
        if better or (_due(spec.checkpoints.every, step, schedule) and step < total):
            saved = _save(job, clock, best=better)
        if report.state_word != "training" and step < total:
            report.state("training")

    if outcome == "succeeded" and _owes_evaluation(job):
        outcome = devices.agree(_request(job, clock)) or "cancelled"
    if outcome == "cancelled":
        report.state("cancelling", "saving a checkpoint")
    if saved != job.progress.step:
        stale = outcome == "expired" and job.validation is not None and job.progress.evaluated != job.progress.step
        _save(job, clock, best=_evaluate(job) if stale else False)
    return outcome


class Interrupted(Exception):
    """The run was cancelled or interrupted during an evaluation."""


def measure(job: Job, samples: Samples, clock: Clock | None = None) -> dict[str, float]:
    """The metrics of a split, over all its samples, with dropout off.

    With the run's clock it checks for requests: it pauses on request, and raises `Interrupted` when cancelled or
    interrupted by a signal. A time limit waits for the end, because these metrics choose the best checkpoint.
    """
    if isinstance(job.task, OnlineTask):
        samples = _made(job, samples, range(len(samples)), step=None, clock=clock)
    if job.devices.world > 1:  # all processes must measure the same batches
        return _measured(job, samples, clock)
    while (values := attempt(job, at_once(job), lambda: _measured(job, samples, clock))) is None:
        pass
    return values


def _measured(job: Job, samples: Samples, clock: Clock | None) -> dict[str, float]:
    rows: list[torch.Tensor] = []
    loss, metric_sums, count = 0.0, [0.0] * job.task.metric_sums, 0
    groups, lengths = samples.groups, samples.lengths.tolist()
    sizes = [sum([lengths[i] for i in group]) for group in groups]
    budget = samples.token_budget(job.spec.hyperparameters.max_length, at_once(job))
    chunks = [[i for place in chunk for i in groups[place]] for chunk in chunks_of(sizes, budget)]
    own = job.devices.share(chunks)
    idle = job.devices.rounds(len(own)) - len(own)
    common = len(chunks) // job.devices.world  # all processes have at least this many, and must check together

    def batches() -> Iterator[Any]:
        for number, chosen in enumerate([*own, *chunks[:1] * idle]):
            if clock is not None and number < common:
                _give_way(job, clock)
            yield job.task.collate(samples, chosen).to(job.devices.device)

    job.model.eval()
    try:
        with torch.no_grad():
            set_step_mean(job, batches())
            set_step_rows(job, batches(), alone=False)
            for number, batch in enumerate(batches()):
                with job.devices.autocast():
                    sums = job.task.forward(job.model, batch)
                if number >= len(own):  # another process needed this one's part of the weights
                    continue
                loss += sums.loss.item()
                metric_sums = added(metric_sums, sums.metric_sums.tolist())
                count += sums.count
                if sums.rows is not None:
                    rows.append(sums.rows)
    finally:
        job.model.train()
    loss, total, *metric_sums = job.devices.totals(loss, count, *metric_sums)
    values = job.task.metrics(loss, metric_sums, int(total))
    if isinstance(job.task, MeasuresRows) and job.task.row_values:
        mine = torch.cat([torch.zeros(0, job.task.row_values, dtype=torch.float64), *rows])
        values |= job.task.row_metrics(job.devices.rows(mine))
    return values


def _made(
    job: Job, samples: Samples, chosen: Sequence[int], *, step: int | None, clock: Clock | None = None
) -> Samples:
    """The samples that the task makes with the current model. With a clock, it checks for requests."""
    task = job.task
    assert isinstance(task, OnlineTask)

    def make() -> Samples:
        task.at_once = at_once(job)
        return task.make_samples(
            job.model, samples, chosen, step=step, devices=job.devices,
            check=lambda: None if clock is None else _give_way(job, clock),
        )  # fmt: skip

    if job.devices.world > 1:  # all processes must make the same samples together
        return make()
    while (made := attempt(job, at_once(job), make)) is None:
        pass
    return made


def _give_way(job: Job, clock: Clock) -> None:
    request = job.devices.agree(_request(job, clock))
    if request in ("cancelled", "interrupted"):
        raise Interrupted
    if request == "pause":
        with clock.standing():
            _stand(job)
        job.report.state("evaluating")


def _evaluate(job: Job, clock: Clock | None = None) -> bool:
    """Evaluate the validation split. Returns whether it is the best so far. With a clock, it checks for requests."""
    assert job.validation is not None
    job.report.state("evaluating")
    try:
        values = measure(job, job.validation, clock)
    except Interrupted:
        return False
    chosen_by, step = job.task.best_metric, job.progress.step
    value = values[chosen_by.name]
    job.report.metrics(step, job.epoch, "validation", values)
    best = job.progress.best_value
    better = math.isfinite(value) and chosen_by.is_better(value, best)
    stopping = job.spec.validation.early_stopping
    delta = stopping.min_delta if stopping is not None else 0.0
    worse = 0 if chosen_by.is_better(value, best, delta) else job.progress.worse + 1
    stopped = stopping is not None and worse >= stopping.patience
    last = {name: values[name] for name in ("loss", chosen_by.name) if math.isfinite(values[name])}
    job.progress = replace(
        job.progress,
        best_value=value if better else best,
        best_step=step if better else job.progress.best_step,
        worse=worse,
        stopped_early=stopped,
        last_values=last,
        evaluated=step,
    )
    if stopped:
        what = f"{worse} evaluations without an improvement of the validation {chosen_by.name}"
        job.report.event("message", f"stopped early: {what}", step=step)
    return better


def _owes_evaluation(job: Job) -> bool:
    """Whether the evaluation of this step was interrupted."""
    step = job.progress.step
    return (
        job.validation is not None
        and _due(job.spec.validation.every, step, job.schedule)
        and job.progress.evaluated != step
    )


def _save(job: Job, clock: Clock, *, best: bool) -> int:
    """Save the state; returns its step."""
    step = job.progress.step
    job.progress = replace(job.progress, seconds=clock.seconds())
    random_states = job.devices.random_states()
    if job.devices.rank == 0:
        job.report.state("saving", f"checkpoint {step}")
        last = job.progress.last_values if job.progress.evaluated == step else {}
        metrics = {f"validation_{name}": value for name, value in last.items()}
        folder = job.run.checkpoints
        checkpoints.save(
            folder, job.progress, epoch=job.epoch, best=best, metrics=metrics,
            write=lambda aside: job.write(aside, random_states),
        )  # fmt: skip
        if best:
            checkpoints.only_best(folder, step)
        checkpoints.prune(folder, keep=job.spec.checkpoints.keep)
        job.report.event("checkpoint", f"checkpoint at step {step}", step=step, best=best)
    elif job.devices.sharded:  # each process writes its own part
        job.write(job.run.checkpoints / checkpoints.name_of(step), random_states)
    job.devices.barrier()
    return step


def _request(job: Job, clock: Clock) -> str | None:
    limit = job.spec.limits.max_time
    if job.run.requested("cancel"):
        return "cancelled"
    if job.stopping():
        return "interrupted"
    if (limit is not None and clock.seconds() >= limit) or job.run.requested("expire"):
        return "expired"
    return "pause" if job.run.requested("pause") else None


def _stand(job: Job) -> None:
    job.report.state("paused")
    ends = ("cancel", "expire")
    while job.run.requested("pause") and not any(map(job.run.requested, ends)) and not job.stopping():
        time.sleep(0.1)
    job.report.state("training")


def _due(every: str | int, step: int, schedule: Schedule) -> bool:
    if every == "never":
        return False
    interval = schedule.steps_per_epoch if isinstance(every, str) else every
    return step % interval == 0 or step == schedule.total_steps


def _monitor(job: Job) -> LearningMonitor | None:
    """The monitor of a new run. Losses of samples that the model makes itself say nothing."""
    if job.progress.step or isinstance(job.task, OnlineTask):
        return None
    rate = job.spec.hyperparameters.learning_rate
    return LearningMonitor(job.task, job.train, total_steps=job.schedule.total_steps, learning_rate=rate)


def _watch(job: Job, monitor: LearningMonitor | None, sums: StepSums, norm: float) -> None:
    """Report a warning of the monitor."""
    if monitor is not None and (text := monitor.step(sums.loss / sums.count, sums.metric_sums, norm)) is not None:
        job.report.warning(text, step=job.progress.step)


def _log(job: Job, meter: Meter, rate: float, norm: float) -> None:
    values = job.task.metrics(meter.loss, meter.metric_sums, meter.count)
    values |= {
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens_per_s": round(meter.tokens_per_s(), 1),
        "memory_mb": round(job.devices.memory_mb(), 1),
    }
    job.report.metrics(job.progress.step, job.epoch, "train", values)
    meter.clear()


def _check_finite(figure: float, name: str, step: int) -> None:
    if not math.isfinite(figure):
        raise TrainingProblem(
            "diverged",
            f"the {name} is {figure} at step {step + 1}",
            "Lower the learning rate, raise warmup_ratio, or set max_grad_norm; then look at the rows of that step.",
        )
