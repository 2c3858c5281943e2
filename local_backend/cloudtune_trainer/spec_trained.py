"""The parts of ``spec.json`` that say what is trained: the adapter, and a schedule for the layers.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which weights are trained."""

    type: str = "lora"
    path: str | None = None
    """A folder with an adapter from which training starts; the other settings are those of the adapter."""
    fingerprint: str | None = None
    """Fingerprint of its files when the job was planned."""
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    virtual_tokens: int = 20
    rslora: bool = False
    """Scale the update by alpha / sqrt(rank) instead of alpha / rank."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """peft's ``init_lora_weights``."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained completely and stored with the adapter."""
    bias: Literal["none", "all", "lora_only"] = "none"
    bottleneck_size: int = 64
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """Sublayers with a bottleneck: attention and feed-forward, or feed-forward only."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of gradual unfreezing. It has ``epochs`` or ``share``."""

    layers: int | None = None
    """The number of trained layers, from the top; 0 for the head alone. None: one stage for each number of layers."""
    epochs: float | None = None
    share: float | None = None
    """Length as a share of the run's steps."""


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Which layers are trained, when, and at which learning rate. See `cloudtune_trainer.layer_schedule`."""

    freeze: tuple[str, ...] = ()
    freeze_depth: int | None = None
    unfreeze: tuple[Stage, ...] = ()
    decay: float = 1.0
    learning_rates: dict[str, float] = field(default_factory=dict)

    @property
    def needs_levels(self) -> bool:
        """Whether a setting depends on the order of the layers."""
        return self.freeze_depth is not None or bool(self.unfreeze) or self.decay != 1.0


def faults_of_layers(layers: Layers) -> list[str]:
    """Checks beyond the types."""
    found = []
    if not 0 < layers.decay <= 1:
        found.append(f"layers.decay must be more than 0 and at most 1, not {layers.decay}")
    if layers.freeze_depth is not None and layers.freeze_depth < 0:
        found.append("layers.freeze_depth must be at least 0")
    if not all(0 < rate < float("inf") for rate in layers.learning_rates.values()):
        found.append("layers.learning_rates must be positive, finite numbers")
    counts = [stage.layers for stage in layers.unfreeze]
    if counts not in ([], [None]) and (None in counts or counts != sorted(set(counts)) or min(counts) < 0):  # type: ignore[type-var, operator]
        found.append("layers.unfreeze: each stage trains more layers than the one before it")
    if any((stage.epochs is None) is (stage.share is None) for stage in layers.unfreeze):
        found.append("layers.unfreeze: a stage has epochs or share")
    if not all(0 < (stage.epochs or stage.share or 0) < float("inf") for stage in layers.unfreeze):
        found.append("layers.unfreeze: the length of a stage must be positive")
    return found
