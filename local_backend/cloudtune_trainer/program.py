"""Executes a run from its spec to its model, for ``python -m cloudtune_trainer``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cloudtune_trainer import checkpoints, loop, models, result
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.batches import schedule_of
from cloudtune_trainer.devices import Devices
from cloudtune_trainer.embedding_noise import add_embedding_noise
from cloudtune_trainer.job import Job
from cloudtune_trainer.layer_schedule import LayerSchedule
from cloudtune_trainer.loading import Cancelled, Loaded, load
from cloudtune_trainer.optimizer import optimizer_for
from cloudtune_trainer.quiet import ignore_warnings
from cloudtune_trainer.rate_range import range_test
from cloudtune_trainer.tasks.task import OnlineTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudtune_trainer.checkpoints import Saved
    from cloudtune_trainer.folder import RunFolder
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import RunSpec


def import_libraries(spec: RunSpec) -> None:
    """Import early the modules that loading the model needs."""
    import transformers.modeling_utils  # noqa: F401

    if ADAPTERS[spec.adapter.type].quantized:
        from cloudtune_trainer.quantization import import_library

        import_library()
    if ADAPTERS[spec.adapter.type].config is not None:
        import peft  # noqa: F401


def run_training(run: RunFolder, spec: RunSpec, report: Report, stopping: Callable[[], bool]) -> tuple[str, str]:
    """Train, and write the model. Returns the outcome and its message; the caller writes them.

    The outcome is a final state, or ``interrupted`` if ``stopping`` ended the run and neither cancel nor expire is
    requested.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # the log is a file; the progress is in the status
    ignore_warnings()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    report.state("loading", "model")
    devices = Devices(spec.device, spec.hyperparameters.precision, spec.distributed.strategy)
    try:
        loaded = load(run, spec, report, devices, lambda: stopping() or run.requested("cancel"))
    except Cancelled:
        return ("cancelled", "") if run.requested("cancel") else _interrupted(run, "before the first step")
    if devices.sharded:
        from cloudtune_trainer.sharding import shard

        shard(loaded.model, devices)
    job = _assemble(run, loaded.spec, report, loaded, stopping)
    # dropout starts from here, independent of loading; each process of a group has its own state
    torch.manual_seed(spec.seed + devices.rank)
    job.progress = replace(job.progress, labels=list(loaded.task.labels))
    if loaded.start is not None:
        result.restore_state(loaded.start, job)
        job.progress = loaded.start.progress
        if loaded.start.path.parent != run.checkpoints:
            job.progress = replace(job.progress, seconds=0.0)
            _bring(job, loaded.start)
    if spec.learning_rate_range is not None:
        tested = range_test(job)
        devices.leave()
        return tested
    outcome = loop.train(job)
    if outcome in ("succeeded", "expired") and job.progress.step:
        _finish(job, loaded)
    devices.leave()
    if outcome == "expired":
        limit = "the external time limit" if run.requested("expire") else f"max_time of {spec.limits.max_time:g} s"
        return outcome, f"{limit} was reached at step {job.progress.step}"
    if outcome == "interrupted":
        return _interrupted(run, f"at step {job.progress.step}, and saved a checkpoint")
    return outcome, ""


def _interrupted(run: RunFolder, where: str) -> tuple[str, str]:
    """The outcome of a run that a signal ended: after the request to expire, this is the limit's signal."""
    if run.requested("expire"):
        return "expired", f"the external time limit was reached; the trainer was stopped {where}"
    return "interrupted", where


def _assemble(run: RunFolder, spec: RunSpec, report: Report, loaded: Loaded, stopping: Callable[[], bool]) -> Job:
    hyper = spec.hyperparameters
    train, head = loaded.splits["train"], None
    if isinstance(loaded.task, OnlineTask) and loaded.task.head is not None:
        head = loaded.task.head.to(loaded.devices.device)
    schedule = schedule_of(
        train.lengths.tolist(), batch_size=hyper.batch_size, capacity=hyper.max_length, packing=loaded.packing,
        epochs=hyper.epochs, max_steps=hyper.max_steps, seed=spec.seed, group_by_length=spec.group_by_length,
        repeats=loaded.task.steps_per_batch if isinstance(loaded.task, OnlineTask) else 1,
    )  # fmt: skip
    if (hyper.warmup_steps or 0) >= schedule.total_steps:
        report.warning(
            "the learning rate never reaches its peak: "
            f"the warmup takes {hyper.warmup_steps} of {schedule.total_steps} steps"
        )
    if hyper.neftune_alpha is not None:
        add_embedding_noise(loaded.model, hyper.neftune_alpha)
    layers = LayerSchedule(loaded.model, spec.layers, hyper.learning_rate, schedule, head=head)
    report.event(
        "message",
        f"{len(train)} samples in {len(schedule.sequences)} sequences, {schedule.total_steps} steps",
        samples=len(train),
        tokens=len(train.ids),
        learnt_tokens=train.learnt_tokens,
        sequences=len(schedule.sequences),
        total_steps=schedule.total_steps,
        device=str(loaded.devices.device),
        processes=loaded.devices.world,
        compute=str(loaded.devices.compute).removeprefix("torch."),
        trained_parameters=sum(p.numel() for p in layers.trained.values()),
    )
    if hyper.precision == "auto":
        has = "has" if loaded.devices.compute == torch.bfloat16 else "has no"
        compute = "bf16" if loaded.devices.compute == torch.bfloat16 else "fp32"
        report.event("message", f"precision: {compute}, because {loaded.devices.device} {has} native bf16 products")
    if schedule.total_steps <= layers.last_start:
        report.warning(
            f"the last stage of layers.unfreeze starts at step {layers.last_start}, after the end of the run"
        )
    job = Job(
        run=run,
        spec=spec,
        report=report,
        devices=loaded.devices,
        model=loaded.model,
        layers=layers,
        optimizer=optimizer_for(layers, hyper, loaded.devices.device),
        task=loaded.task,
        train=train,
        validation=loaded.splits.get("validation"),
        schedule=schedule,
        write=lambda folder, random_states: result.write_state(folder, job, loaded, random_states),
        stopping=stopping,
    )
    return job


def _bring(job: Job, start: Saved) -> None:
    """Copy the checkpoints that may become the model: this run may end without a better one."""
    job.devices.barrier()  # a process that is still loading must not read an incomplete copy
    if job.devices.rank == 0 and not checkpoints.bring(job.run.checkpoints, start):
        job.report.warning(f"the best checkpoint so far, of step {start.progress.best_step}, no longer exists")
    job.devices.barrier()


def _finish(job: Job, loaded: Loaded) -> None:
    """Write the model, and evaluate it on the test rows. Only the first process's machine has the checkpoints."""
    step, epoch = job.progress.step, job.epoch
    if job.devices.sharded:
        from cloudtune_trainer import sharding

        sharding.reshard(job.model)
    if job.devices.rank == 0:
        saved = result.chosen(job)
        step, epoch = saved.step, saved.epoch
        job.report.state("saving", f"model of step {step}")
        result.write_model(job, loaded, saved)
    if "test" in loaded.splits and _has_chosen_weights(job, loaded):
        job.report.metrics(step, epoch, "test", loop.measure(job, loaded.splits["test"]))


def _has_chosen_weights(job: Job, loaded: Loaded) -> bool:
    """Give all processes the weights of the model that was written. False if they cannot have them."""
    devices = job.devices
    saved = result.chosen(job) if devices.sharded or devices.rank == 0 else None
    if saved is not None and saved.step != job.progress.step:
        if saved.is_sharded:
            from cloudtune_trainer import sharding

            sharding.load(saved.path, job, weights_only=True)
        elif devices.sharded:
            what = f"the test rows are not evaluated: the best checkpoint, {saved.path.name}, was saved without fsdp"
            job.report.warning(what)
            return False
        else:
            models.restore_weights(saved.weights, loaded.model, adapted=loaded.adapted)
    devices.spread(list(job.layers.trained.values()))
    return True
