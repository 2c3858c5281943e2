"""The slots of this machine, found without torch. Standard library only."""

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
    """The GPUs that a child process can use, as named in CUDA_VISIBLE_DEVICES."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        # CUDA stops reading at the first invalid name, and -1 is commonly used for "none".
        return tuple(names[: names.index("-1")] if "-1" in names else names)
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if not count:  # containers often have the device nodes without the driver's listing
        count = sum(1 for name in os.listdir(devices) if re.fullmatch(r"nvidia\d+", name))
    return tuple(str(index) for index in range(count))


def pool_of(device: str) -> str:
    """The pool of slots for a job: the GPUs if it can use one and there is one, else the CPU."""
    return GPU if device in ("auto", "cuda") and visible_gpus() else CPU


def slot_count(pool: str, slots: int | None) -> int:
    """How many jobs of that pool can run at once. With None: one for each GPU, one on the CPU."""
    return slots or (max(1, len(visible_gpus())) if pool == GPU else 1)


def slots_wanted(pool: str, count: int, processes: int) -> int:
    """The number of slots of a job: one for each of its processes on GPUs; on the CPU they share one."""
    return min(processes, count) if pool == GPU else 1


def environment_of(pool: str, slots: Iterable[int]) -> dict[str, str]:
    """The device settings in the trainer's environment."""
    gpus = visible_gpus() if pool == GPU else ()
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot % len(gpus)] for slot in sorted(slots))} if gpus else {}
