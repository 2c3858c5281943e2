"""Fully sharded training (FSDP2): each process holds a part of every weight, gradient and optimizer state.

A layer's weights are whole only while it computes. Each process writes its part of a checkpoint, as safetensors; any
number of processes can read it, and at the end the first one writes the model from it. The processes therefore need a
folder that all of them see.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from cloudtune_trainer import models
from cloudtune_trainer.checkpoints import SHARDS
from cloudtune_trainer.optimizer import optimizer_tensors
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.job import Job

_WEIGHTS, _OPTIMIZER = "weights.", "optimizer."


def shard(model: Any, devices: Devices) -> None:
    """Divide the model's weights among the processes, layer by layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        what = f"fsdp requires torch 2.9 or newer, and this is {torch.__version__}"
        raise TrainingProblem("not_installed", what, "Install a newer torch, or use ddp.")
    mesh = init_device_mesh(devices.device.type, (devices.world,))
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in reversed([module for module in model.modules() if type(module).__name__ in layers]):
        fully_shard(module, mesh=mesh)  # inner ones first: Mamba's layers contain others
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # the losses are divided by the count of the whole step: gradients are summed, not averaged
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sums
    if hasattr(model, "set_reduce_scatter_unused_params"):  # newer than torch 2.9
        model.set_reduce_scatter_unused_params(True)  # rows of one process may use other experts


def reshard(model: Any) -> None:
    """Free the whole weights that the last evaluation left. All processes must call it."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes. All of them must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a state of that parameter; values of another shape are not divided."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def save(folder: Path, job: Job) -> None:
    """Write the trained weights and the optimizer's state. All processes must call it."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_parts

    tensors = {f"{_WEIGHTS}{name}": weight.detach() for name, weight in job.layers.trained.items()}
    tensors |= {f"{_OPTIMIZER}{name}": value for name, value in optimizer_tensors(job.optimizer).items()}
    save_parts(tensors, storage_writer=HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True))


def load(folder: Path, job: Job, *, weights_only: bool = False) -> dict[str, Tensor]:
    """Read a sharded checkpoint's weights into the model. Returns the optimizer's tensors.

    All processes that share weights must call it; others read on their own.
    """
    trained = job.layers.trained
    reshard(job.model)
    wanted: dict[str, Tensor] = {f"{_WEIGHTS}{name}": weight.detach() for name, weight in trained.items()}
    for key, size in _sizes(folder).items():
        name = key.removeprefix(_OPTIMIZER).rpartition(".")[0]
        if not weights_only and key.startswith(_OPTIMIZER) and name in trained:
            weight = trained[name]
            wanted[key] = torch.zeros_like(weight.detach()) if size == weight.shape else torch.zeros(size)
    _read(folder, wanted, alone=not job.devices.sharded)
    return {key.removeprefix(_OPTIMIZER): value for key, value in wanted.items() if key.startswith(_OPTIMIZER)}


def consolidate(folder: Path, to: Path, model: Any, *, adapted: bool) -> Path:
    """Write the weights of a sharded checkpoint as whole files to that folder. Returns the folder of the weights."""
    wanted = {key: torch.zeros(size) for key, size in _sizes(folder).items() if key.startswith(_WEIGHTS)}
    _read(folder, wanted, alone=True)
    state = {key.removeprefix(_WEIGHTS): value for key, value in wanted.items()}
    if not adapted:
        state |= {name: value for name, value in model.state_dict().items() if not isinstance(value, DTensor)}
    return models.save_weights(to, model, adapted=adapted, state=state)


def _sizes(folder: Path) -> Mapping[str, torch.Size]:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    found = HuggingFaceStorageReader(str(folder / SHARDS)).read_metadata().state_dict_metadata
    return {name: entry.size for name, entry in found.items() if hasattr(entry, "size")}


def _read(folder: Path, wanted: dict[str, Tensor], *, alone: bool) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load as load_parts

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load_parts(wanted, storage_reader=HuggingFaceStorageReader(str(folder / SHARDS)), no_dist=alone)
