"""The results of a run: the contents of its checkpoints, and the tuned model at the end."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.adapter_conversion import make_plain
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.folder import sync_directory, write_json
from cloudtune_trainer.generation_settings import save_for_answers
from cloudtune_trainer.optimizer import optimizer_tensors, restore_optimizer
from cloudtune_trainer.tasks.task import OnlineTask, WritesFiles
from cloudtune_trainer.tuned import TUNED

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cloudtune_trainer.checkpoints import Saved
    from cloudtune_trainer.job import Job
    from cloudtune_trainer.loading import Loaded


def write_state(folder: Path, job: Job, loaded: Loaded, random_states: dict[str, Tensor]) -> None:
    """Write weights, optimizer and random states: all tensors of a checkpoint. All processes call it if they shard."""
    tensors: dict[str, Tensor] = {}
    if job.devices.sharded:
        from cloudtune_trainer import sharding

        job.devices.barrier()  # the first process has removed an older folder of that name
        sharding.save(folder, job)
        if job.devices.rank:
            return
        kind = {"peft_type": ADAPTERS[job.spec.adapter.type].peft_type}
        write_json(folder / checkpoints.SHARDS / checkpoints.KIND, kind)
    else:
        models.save_weights(folder, loaded.model, adapted=loaded.adapted)
        tensors = {f"optimizer.{name}": value for name, value in optimizer_tensors(job.optimizer).items()}
    tensors |= {f"random.{name}": value for name, value in random_states.items()}
    if job.devices.scaler is not None:
        tensors |= job.devices.scaler_state()
    if isinstance(loaded.task, OnlineTask):
        tensors |= {f"task.{name}": value for name, value in loaded.task.state().items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / checkpoints.STATE)


def restore_state(saved: Saved, job: Job) -> None:
    """Restore optimizer and random state, and weights in parts; whole ones were loaded with the model."""
    tensors = load_file(saved.path / checkpoints.STATE)
    parts: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = value
    state = parts.get("optimizer", {})
    if saved.is_sharded or job.devices.sharded:
        from cloudtune_trainer import sharding

        state = sharding.load(saved.path, job) if saved.is_sharded else {
            key: sharding.like(value, job.layers.trained[key.rpartition(".")[0]]) for key, value in state.items()
        }  # fmt: skip
    restore_optimizer(job.optimizer, state)
    job.devices.set_random_state(parts["random"])
    if "scaler" in parts:
        job.devices.set_scaler_state(parts["scaler"])
    if isinstance(job.task, OnlineTask):
        job.task.restore(parts.get("task", {}))


def chosen(job: Job) -> Saved:
    """The checkpoint that becomes the model: the best by the task's metric, else the last."""
    complete = checkpoints.saved_in(job.run.checkpoints)
    best = [saved for saved in complete if saved.best]
    return best[-1] if best else complete[-1]


def write_model(job: Job, loaded: Loaded, saved: Saved) -> None:
    """Write the tuned model's folder: weights, tokenizer and ``tuned.json``, atomically."""
    spec, target = job.spec, job.run.model
    aside, joined = target.with_name(".model.partial"), target.with_name(".model.joined")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        weights = saved.weights
        if saved.is_sharded:
            from cloudtune_trainer import sharding

            weights = sharding.consolidate(saved.path, joined, loaded.model, adapted=loaded.adapted)
        shutil.copytree(weights, aside)
        if (initial := getattr(loaded.model, "initial_factors", None)) is not None:
            make_plain(aside, initial)
        if loaded.task.peft_task_type == "CAUSAL_LM":
            save_for_answers(loaded.model, loaded.tokenizer, aside, continues=spec.method == "cpt")
        else:
            loaded.tokenizer.save_pretrained(aside)
            if loaded.model.can_generate():
                loaded.model.generation_config.save_pretrained(aside)
        if isinstance(loaded.task, WritesFiles):
            loaded.task.write_files(aside, loaded.model)
        write_json(
            aside / TUNED,
            {
                "version": 1,
                "base": {
                    "source": spec.model.source,
                    "path": spec.model.path,
                    "revision": spec.model.revision,
                    "fingerprint": loaded.fingerprint,
                },
                "base_folder": loaded.base.path,
                "adapter": spec.adapter.type,
                "merged": False,
                "method": spec.method,
                "labels": list(loaded.task.labels),
                "problem": spec.classification.problem if loaded.task.labels else None,
                "max_length": spec.hyperparameters.max_length,
                "step": saved.step,
                "metrics": saved.metrics,
            },
        )
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(joined, ignore_errors=True)
    sync_directory(target.parent)
