"""The state of one training run, shared by the loop and its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.checkpoints import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from cloudtune_trainer.batches import Schedule
    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.folder import RunFolder
    from cloudtune_trainer.layer_schedule import LayerSchedule
    from cloudtune_trainer.reporting import Report
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.samples import Samples
    from cloudtune_trainer.tasks.task import Task


@dataclass
class Job:
    """See the module."""

    run: RunFolder
    spec: RunSpec
    report: Report
    devices: Devices
    model: Any
    """The trained model, adapter included."""
    layers: LayerSchedule
    optimizer: torch.optim.Optimizer
    task: Task
    train: Samples
    validation: Samples | None
    schedule: Schedule
    write: Callable[[Path, dict[str, torch.Tensor]], None]
    """Writes weights, optimizer and these random states to a checkpoint's folder."""
    stopping: Callable[[], bool]
    """Whether the process has received a signal to stop (SIGTERM, SIGINT). Without a request to cancel, the run counts
    as interrupted."""
    progress: Progress = field(default_factory=Progress)

    @property
    def epoch(self) -> float:
        """Passes done so far."""
        return self.schedule.epoch_at(self.progress.step)
