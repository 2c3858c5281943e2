"""The interface of a task to the loop. Each task has a module, listed in ``table``.

A task converts records to samples, samples to batches, and a batch to a loss.

Losses are sums over tokens, rows or pairs. The loop divides by the count of the whole optimizer step, so that a batch
computed in parts, or on several devices, has the same gradient as one computed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from cloudtune_trainer.devices import Devices
    from cloudtune_trainer.models import BaseModel
    from cloudtune_trainer.records import Record
    from cloudtune_trainer.run_spec import RunSpec
    from cloudtune_trainer.samples import Samples


@dataclass
class Sums:
    """The sums of a batch; they can be added."""

    loss: Tensor
    metric_sums: Tensor
    """The sums for the task's metrics, in the task's own order."""
    count: int
    """The number of tokens, rows or pairs in the loss sum."""
    rows: Tensor | None = None
    """The values of each row for `MeasuresRows`, [rows, values], in fp64 on the CPU."""


class BestMetric(NamedTuple):
    """The validation metric that chooses the best checkpoint."""

    name: str
    higher_is_better: bool

    def is_better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        """Whether the value improves on another one, if there is any, by more than ``by``."""
        if than is None:
            return True
        return value > than + by if self.higher_is_better else value < than - by


class Task(Protocol):
    """One task. See ``causal_lm`` for the simplest."""

    spec: RunSpec
    """The run's settings. Loading adjusts them to the model."""
    random_weights: tuple[str, ...]
    """The names of the weights that are not in the base model's files, if any; loading sets them."""
    can_pack: bool
    """Whether batches can hold several samples in one row."""
    packed: bool
    """Whether batches are packed. Loading sets it, depending on the model and the adapter."""
    needs_reference: bool
    """Whether `Pairs.reference` is needed: the untrained model's log-probabilities of every sample."""

    @property
    def peft_task_type(self) -> str | None:
        """peft's task type; None for a model that does not read tokens."""

    @property
    def best_metric(self) -> BestMetric:
        """The metric that chooses the best checkpoint; it is known once the model is loaded."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's outputs, if they have names; they are known once the model is loaded."""

    @property
    def metric_sums(self) -> int:
        """How many sums `forward` returns besides the loss."""

    def load_model(
        self, base: BaseModel, tokenizer: Any, records: Callable[[], Iterable[Record]], *, dtype: torch.dtype,
        weights: Path | None, dropout: float | None,
    ) -> Any:  # fmt: skip
        """The model to train, on the CPU, without any adapter. ``records`` returns the training rows."""

    def encode(self, records: Iterable[Record], tokenizer: Any) -> Samples:
        """The training samples."""

    def collate(self, samples: Any, chosen: Sequence[int]) -> Any:
        """A `Batch` of those samples, for one forward pass."""

    def forward(self, model: Any, batch: Any) -> Sums:
        """Loss and metric sums of a batch."""

    def metrics(self, loss: float, metric_sums: Sequence[float], count: int) -> dict[str, float]:
        """Metrics from sums over a step or a split, including ``loss`` and the best metric."""


@runtime_checkable
class OnlineTask(Protocol):
    """A task that makes its samples during training, with the model as it is at that step."""

    steps_per_batch: int
    """How many consecutive optimizer steps use the same samples."""
    head: torch.nn.Module | None
    """Weights that are trained beside the model, and that the result does not need."""
    at_once: int
    """How many sequences `make_samples` computes at once: as many as a part of a training step has. The loop lowers it
    after an out-of-memory error."""

    def make_samples(
        self, model: Any, samples: Any, chosen: Sequence[int], *, step: int | None, devices: Devices,
        check: Callable[[], None],
    ) -> Samples:  # fmt: skip
        """New samples for those of ``samples``, in the same order, an equal number of new ones for each.

        ``step`` is the optimizer step, counted from 0, or None for an evaluation. The result is a function of the step,
        the weights and the spec's seed, and the same in all processes, which must call this together. ``check`` is
        called between two batches in all processes; it may raise.
        """

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold besides the model, the optimizer and the random state."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the result of `state`."""


@runtime_checkable
class UsesStepMean(Protocol):
    """A task whose loss also depends on a mean over the whole optimizer step, or over the whole split in evaluation.

    The loop computes the mean before the losses, over all parts of the step and all processes, so that the loss does
    not depend on how the step is divided.
    """

    step_mean: float
    """Set by the loop before `Task.forward`."""

    def step_sum(self, model: Any, batch: Any) -> Tensor:
        """The sum over a batch of the value whose mean is needed. Called without gradients and without dropout."""


@runtime_checkable
class ComparesRows(Protocol):
    """A task whose loss compares the rows of an optimizer step, or of a split in evaluation, with one another.

    If there are several batches, the loop first computes the values of all rows, in all processes, so that without
    dropout neither the loss nor its gradient depends on how the step is divided.
    """

    def row_values_of(self, model: Any, batch: Any) -> Tensor:
        """The values of a batch, [any, values], in fp64 on the CPU. Called without gradients and without dropout."""

    def set_step(self, values: Tensor | None, device: torch.device) -> None:
        """Use the values of all batches before `Task.forward`; None: the next batch has all rows of its step."""


@runtime_checkable
class WritesFiles(Protocol):
    """A task whose model has further files."""

    def write_files(self, folder: Path, model: Any) -> None:
        """Write them into the tuned model's folder."""


@runtime_checkable
class MeasuresRows(Protocol):
    """A task with metrics of a split that are not sums over rows, such as a correlation."""

    row_values: int
    """The number of values of each row in `Sums.rows`; 0 if there are none."""

    def row_metrics(self, rows: Tensor) -> dict[str, float]:
        """Metrics from `Sums.rows` of all rows of a split."""
