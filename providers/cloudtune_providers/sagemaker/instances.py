"""Instance types, the memory needed for training, and the choice of a type. Pure.

GPU types as in https://docs.aws.amazon.com/batch/latest/userguide/gpu-jobs.html (seen 2026-11-21).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 2**30


class Instance(NamedTuple):
    """An instance type."""

    name: str
    gpus: int
    gpu_gib: float
    """Memory of each GPU."""
    gib: float
    """Memory of the machine."""


# In order of preference: the cheaper ones first.
TYPES = tuple(
    Instance(f"ml.{name}", gpus, each, gib)
    for name, gpus, each, gib in (
        ("m5.xlarge", 0, 0, 16), ("m5.2xlarge", 0, 0, 32), ("m5.4xlarge", 0, 0, 64),
        ("g4dn.xlarge", 1, 16, 16), ("g5.xlarge", 1, 24, 16), ("g5.2xlarge", 1, 24, 32), ("g5.4xlarge", 1, 24, 64),
        ("g5.8xlarge", 1, 24, 128), ("g6e.2xlarge", 1, 48, 64), ("g6e.4xlarge", 1, 48, 128),
        ("g6e.8xlarge", 1, 48, 256), ("p5.4xlarge", 1, 80, 256),
        ("g4dn.12xlarge", 4, 16, 192), ("g5.12xlarge", 4, 24, 192), ("g5.48xlarge", 8, 24, 768),
        ("g6e.12xlarge", 4, 48, 384), ("g6e.48xlarge", 8, 48, 1536), ("p4d.24xlarge", 8, 40, 1152),
        ("p4de.24xlarge", 8, 80, 1152), ("p5.48xlarge", 8, 80, 2048), ("p5e.48xlarge", 8, 141, 2048),
    )
)  # fmt: skip
_BY_NAME = {instance.name: instance for instance in TYPES}
_PROPOSED = tuple(instance for instance in TYPES if instance.gpus == 1)
UNKNOWN = "ml.g5.2xlarge"
"""The type for a model of unknown size."""
TINY = 100_000_000
"""Models of fewer parameters train on a CPU."""
_CPU = "ml.m5.xlarge"
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)\s*([bBmM])(?![A-Za-z0-9])")


class Memory(NamedTuple):
    """The memory needed on one GPU, in GiB, and its parts."""

    gib: float
    basis: str


def instance_of(name: str) -> Instance | None:
    """The entry of a type."""
    return _BY_NAME.get(name)


def parameters_of(model: Mapping[str, Any], name: str) -> int | None:
    """The number of parameters: counted if the files are available, else from the name ("llama-3.2-1b")."""
    if model.get("parameters"):
        return int(model["parameters"])
    found = _SIZE.findall(name.rpartition("/")[2].replace("_", "-"))
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * (1e9 if unit in "bB" else 1e6))


def memory_of(parameters: int, document: Mapping[str, Any]) -> Memory:
    """An estimate. Every GPU holds the whole model: the trainer distributes the batch, not the weights."""
    hyper, adapter = document["hyperparameters"], document["adapter"]
    hidden = 2048 * (parameters / 1e9) ** 0.36  # as usual for that size
    full = adapter["type"] == "full"
    moved = parameters if full else min(parameters, int(parameters * 2.2 * adapter["rank"] / hidden))
    weights = parameters * (4 if full else 2)
    learning = moved * 12 + (0 if full else moved * 4)  # gradient, and Adam's two moments, in fp32
    sequences = 2 if METHODS[document["method"]].pairs else 1  # both answers of a pair, each with the prompt
    at_once = -(-hyper["batch_size"] // hyper["gradient_accumulation_steps"]) * hyper["max_length"] * sequences
    each = 34 * parameters / (12 * hidden) * (2 if hyper["precision"] == "fp32" else 1)
    if hyper["gradient_checkpointing"]:
        each /= 8
    activations = at_once * each
    total = (weights + learning + activations) * 1.1 / GIB + 1.5
    basis = (
        f"{parameters / 1e9:.2f} billion parameters: {weights / GIB:.1f} GiB of weights, {learning / GIB:.1f} to train "
        f"{moved / 1e6:.1f} million of them, about {activations / GIB:.1f} for {at_once:,} tokens at once, 1.5 for CUDA"
    )
    return Memory(round(total, 1), basis)


def proposed(parameters: int | None, memory: Memory | None) -> Instance | None:
    """The cheapest type that fits; None if no GPU is large enough."""
    if parameters is None or memory is None:
        return _BY_NAME[UNKNOWN]
    if parameters < TINY:
        return _BY_NAME[_CPU]
    loading = parameters * 4 * 1.2 / GIB + 4  # the weights are loaded through the machine's memory
    fits = (one for one in _PROPOSED if one.gpu_gib * 0.95 >= memory.gib and one.gib >= loading)
    return next(fits, None)


def volume_gb(parameters: int | None, full: bool) -> int:
    """Disk for the model, its checkpoints and the result."""
    if parameters is None:
        return 100
    model = parameters * 4 / 1e9
    return max(30, int(20 + model * (2 + (6 if full else 1))))
