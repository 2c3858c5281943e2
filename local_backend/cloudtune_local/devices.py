"""Which slots this machine has, found without torch. Standard library only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GPU = "gpu"
CPU = "cpu"
_DRIVER = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")


def visible_gpus(driver: Path = _DRIVER, devices: Path = _DEVICES) -> tuple[str, ...]:
    """The GPUs that a child may use, as CUDA_VISIBLE_DEVICES would name them one by one."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        # CUDA itself stops reading at the first name that is no device, and people write -1 to say "none".
        return tuple(names[: names.index("-1")] if "-1" in names else names)
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if not count:  # containers are often given the device nodes without the driver's listing
        count = sum(1 for node in devices.iterdir() if re.fullmatch(r"nvidia\d+", node.name))
    return tuple(str(index) for index in range(count))


def pool_of(device: str) -> str:
    """Which pool of slots a job waits for: the GPUs if it may use one and there is one, else the CPU."""
    return GPU if device in ("auto", "cuda") and visible_gpus() else CPU


def slot_count(pool: str, slots: int | None) -> int:
    """How many jobs of that pool may run at once; None leaves it to the machine: one for each GPU, one on the CPU."""
    return slots or (max(1, len(visible_gpus())) if pool == GPU else 1)


def slots_wanted(pool: str, count: int, processes: int) -> int:
    """How many slots a job takes: one for each of its processes on GPUs; on the CPU they share one."""
    return min(processes, count) if pool == GPU else 1


def environment_of(pool: str, slots: Iterable[int]) -> dict[str, str]:
    """What the trainer's environment says of its devices."""
    gpus = visible_gpus() if pool == GPU else ()
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot % len(gpus)] for slot in sorted(slots))} if gpus else {}
