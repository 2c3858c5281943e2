"""How a `JobSpec` is divided over processes and machines. The result is the same to rounding."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from cloudtune.spec_types import Part, PositiveInt

StrategyName = Literal["ddp", "fsdp"]


class Distributed(Part):
    """Several processes that train one model. ``distributed: fsdp`` is short for ``distributed: {strategy: fsdp}``."""

    strategy: StrategyName | None = None
    """``ddp``: every process has the whole model. ``fsdp``: each has a part of the weights, gradients and optimizer."""
    processes: PositiveInt | None = None
    """Number of processes, over all nodes: one for each GPU. ``batch_size`` is divided among them."""
    nodes: PositiveInt | None = None
    """Number of machines. Each gets the same number of processes."""

    @model_validator(mode="after")
    def _divides_evenly(self) -> Self:
        if self.processes is not None and self.processes % (self.nodes or 1):
            raise ValueError(f"{self.processes} processes cannot be divided evenly over {self.nodes} nodes")
        return self
