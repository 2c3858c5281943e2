"""What a `JobSpec` trains: the adapter, and a schedule for the layers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cloudtune.spec_types import Fraction, NaturalInt, Part, PositiveFloat, PositiveInt, as_sequence

AdapterName = Literal[
    "full", "lora", "qlora", "dora", "ia3", "prefix", "prompt", "p_tuning", "bottleneck", "head_only",
]  # fmt: skip


class Adapter(Part):
    """Trained weights. ``adapter: lora`` is short for ``adapter: {type: lora}``."""

    type: AdapterName = "lora"
    path: str | None = None
    """A folder with a trained adapter of this type, from which training continues. It decides the other settings."""
    rank: PositiveInt | None = None
    """LoRA rank (r)."""
    alpha: PositiveFloat | None = None
    """LoRA alpha: the update is scaled by alpha / rank."""
    dropout: Fraction | None = None
    """Dropout on the adapter's input."""
    targets: Literal["all-linear"] | tuple[str, ...] | None = None
    """Names of the modules that get an adapter, or ``all-linear``."""
    virtual_tokens: PositiveInt | None = None
    """For ``prefix``, ``prompt`` and ``p_tuning``: how many trained tokens the model sees before the row."""
    rslora: bool | None = None
    """Scale LoRA's update by alpha / sqrt(rank) instead."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] | None = None
    """LoRA's initialization, as peft names it. ``pissa`` and ``olora`` are saved as plain LoRA of twice the rank."""
    modules_to_save: tuple[str, ...] | None = None
    """Names of modules that are trained completely, such as ``lm_head``, and saved with the adapter."""
    bias: Literal["none", "all", "lora_only"] | None = None
    """The biases that are trained with LoRA."""
    bottleneck_size: PositiveInt | None = None
    """Hidden units of a ``bottleneck`` adapter."""
    placement: Literal["houlsby", "pfeiffer"] | None = None
    """Where ``bottleneck`` adapters are: after attention and feed-forward, or only after feed-forward."""


class Stage(Part):
    """A stage of gradual unfreezing. Its length is ``epochs``, or ``share`` of all steps."""

    layers: NaturalInt | None = None
    """How many layers are trained, counted from the top, with everything after the last one. 0: only that.

    Left out: one stage for each number of layers, from 0 to all."""
    epochs: PositiveFloat | None = None
    share: Annotated[Fraction, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) is (self.share is None):
            raise ValueError("set epochs or share")
        return self


class Layers(Part):
    """Which layers are trained, from when on, and how fast.

    A pattern matches whole parts of a weight's name: ``layers.0`` is the first layer, ``*norm*`` all norms.
    """

    freeze: (
        Annotated[tuple[str, ...], BeforeValidator(as_sequence, json_schema_input_type=tuple[str, ...] | str)] | None
    ) = None
    """Patterns of weights that are not trained."""
    freeze_depth: NaturalInt | None = None
    """Freezes the embeddings and this many layers, counted from the bottom."""
    unfreeze: (
        Annotated[tuple[Stage, ...], BeforeValidator(as_sequence, json_schema_input_type=tuple[Stage, ...] | Stage)]
        | None
    ) = None
    """Gradual unfreezing: each stage trains more layers. After the last one, all layers are trained."""
    decay: Annotated[PositiveFloat, Field(le=1)] | None = None
    """The learning rate of each layer, as a factor of the rate of the layer above it."""
    learning_rates: dict[str, PositiveFloat] | None = None
    """Pattern -> its own peak learning rate, without ``decay``. The first pattern that matches applies."""

    @field_validator("unfreeze")
    @classmethod
    def _growing(cls, stages: tuple[Stage, ...] | None) -> tuple[Stage, ...] | None:
        counts = [-1 if stage.layers is None else stage.layers for stage in stages or ()]
        if len(counts) > 1 and (counts != sorted(set(counts)) or counts[0] < 0):
            raise ValueError("each stage must train more layers than the one before it")
        return stages
