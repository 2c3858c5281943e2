"""JobSpec and its parts: what to train. The back end is chosen separately (``config``).

The models are frozen and reject unknown keys. A field that is left out is None, which means the back end's default;
the plan shows that value with its source. ``specfile`` reads specs from files.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from cloudtune.methods import METHODS, MethodName
from cloudtune.spec_distributed import Distributed, StrategyName
from cloudtune.spec_method import Method
from cloudtune.spec_trained import Adapter, AdapterName, Layers
from cloudtune.spec_tune import Tune
from cloudtune.spec_types import (
    Fraction,
    NaturalFloat,
    NaturalInt,
    Part,
    PositiveFloat,
    PositiveInt,
    Seconds,
    Seed,
    as_sequence,
    short,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC_VERSION = 1
MOST_EPOCHS = 10_000
"""More is certainly a mistake."""

DATA_KINDS = (
    "auto", "chat", "prompt_completion", "prompt", "instruction", "instruction_response", "query_response", "sharegpt",
    "conversation", "text", "preference", "rated", "item", "reward", "text_label", "tags", "question", "pair",
    "contrastive", "similarity", "speech", "image_label",
)  # fmt: skip
"""The core's own kinds of rows. Providers and other packages add more: `cloudtune.plugins.ROW_KINDS`."""
Feature = Literal[
    "system", "turns", "tools", "images", "videos", "bucket_owners", "media_formats", "parts", "weights", "thoughts",
    "names", "fields", "tool_settings", "parallel_tool_calls", "tool_errors", "tool_images", "image_details",
    "later_system", "repeated_roles",
]  # fmt: skip
FileFormat = Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "xlsx", "text"]


def _known_kind(value: str) -> str:
    if value not in DATA_KINDS:
        from cloudtune.plugins import ROW_KINDS

        if value not in ROW_KINDS.plugins:
            raise PydanticKnownError("literal_error", {"expected": ", ".join((*DATA_KINDS, *ROW_KINDS.plugins))})
    return value


class Hyperparameters(Part):
    """Hyperparameters. None means the back end's default, shown in the plan."""

    epochs: Annotated[PositiveFloat, Field(le=MOST_EPOCHS)] | None = None
    """Number of training epochs. Fractions are allowed if the back end supports them."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps, regardless of ``epochs``."""
    batch_size: PositiveInt | None = None
    """Sequences per optimizer step, over all devices and accumulation steps."""
    gradient_accumulation_steps: PositiveInt | None = None
    """Number of parts in which a batch is computed. More parts use less memory and give the same result."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate, absolute. Some back ends accept a multiplier instead, in ``overrides``."""
    scheduler: Literal["constant", "linear", "cosine"] | None = None
    """Learning rate schedule after warmup."""
    warmup_steps: NaturalInt | None = None
    warmup_ratio: Fraction | None = None
    """Warmup as a fraction of all steps. Cannot be combined with ``warmup_steps``."""
    weight_decay: NaturalFloat | None = None
    adam_beta1: Fraction | None = None
    adam_beta2: Fraction | None = None
    adam_epsilon: PositiveFloat | None = None
    dropout: Fraction | None = None
    """Dropout of the model (attention, residual), if it has any. The adapter has a separate setting."""
    neftune_alpha: PositiveFloat | None = None
    """Strength of random noise on the embeddings in training (NEFTune), against overfitting. Usual values: 5 to 15."""
    max_grad_norm: NaturalFloat | None = None
    """Maximum gradient norm. 0 disables clipping."""
    max_length: PositiveInt | None = None
    """Maximum tokens per sequence."""
    packing: bool | None = None
    """Pack several short records into each sequence. Records do not attend to each other."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("set warmup_steps or warmup_ratio, not both")
        return self


class EarlyStopping(Part):
    """Stop when the validation metric has not improved for ``patience`` evaluations.

    The metric is the loss, the macro F1 of a classifier, or the mean reward: the one that chooses the best checkpoint.
    """

    patience: PositiveInt = 3
    min_delta: NaturalFloat = 0.0
    """An improvement counts when it is larger than this."""


class Validation(Part):
    """When to evaluate on the validation set."""

    every: Literal["epoch", "never"] | PositiveInt | None = None
    """``epoch``, ``never``, or a number of steps."""
    early_stopping: EarlyStopping | None = None


class Checkpoints(Part):
    """When to save checkpoints. The best and the last one are always kept."""

    every: Literal["epoch"] | PositiveInt | None = None
    """``epoch``, or a number of steps."""
    keep: NaturalInt | None = None
    """Number of checkpoints to keep besides the best and the last."""


class Limits(Part):
    """Limits of the job."""

    max_time: Seconds | None = None
    """Maximum training time, e.g. ``2h``. A job that reaches it is ``expired``; its best checkpoint is kept."""
    max_cost_usd: PositiveFloat | None = None
    """Maximum cost of training in USD. A job billed by time stops before it; others that may cost more are refused."""
    stall_after: Seconds | None = None
    """Warn if a running job has no new step or event for this long."""


def _columns(key: str, text: str) -> list[str]:
    """Return the columns that a template uses. Raises ValueError."""
    try:
        places = [place for place in Formatter().parse(text) if place[1] is not None]
    except ValueError as error:
        raise ValueError(f"template {key}: {error}; write {{{{ and }}}} for literal braces") from error
    for _, name, form, conversion in places:
        if not str(name).strip():
            raise ValueError(f"template {key}: {{}} has no column name")
        if form or conversion:
            raise ValueError(f"template {key}: {{{name}}} must be a column name without {':' if form else '!'}")
    return [str(name) for _, name, _, _ in places]


class Source(Part):
    """A data source. ``train: rows.jsonl`` is short for ``train: {path: rows.jsonl}``."""

    path: str | tuple[str, ...]
    """One or several files. Paths are relative to the spec file's folder."""
    format: FileFormat = "auto"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates the cells of a CSV file. Default: a comma, semicolon, tab or bar, as the first line shows."""
    kind: Annotated[str, AfterValidator(_known_kind), Field(examples=list(DATA_KINDS))] = "auto"
    columns: dict[str, str] = {}
    """Maps columns of the file to field names, e.g. ``{question: prompt, answer: completion}``."""
    template: Annotated[dict[str, str] | None, short("text", dict[str, str] | str)] = None
    """Builds rows from columns: ``{prompt: "Q: {question}", completion: "{answer}"}``, or one string for plain text."""

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        return value  # the data commands report such a name together with everything else that they find

    @model_validator(mode="after")
    def _good_template(self) -> Self:
        if self.template is None:
            return self
        if self.columns or self.kind != "auto":
            raise ValueError("a template uses the file's column names and cannot be combined with columns or kind")
        if not [name for key, text in self.template.items() for name in _columns(key, text)]:
            raise ValueError("the template uses no column; write for example {question}")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return (self.path,) if isinstance(self.path, str) else self.path


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | list | tuple) else value


SourceField = Annotated[Source, BeforeValidator(_source, json_schema_input_type=Source | str | list[str])]
HeldOut = Annotated[
    Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | Source,
    BeforeValidator(_source, json_schema_input_type=float | Source | str | list[str]),
]


class MixedIn(Source):
    """Rows mixed into the training rows, such as general rows that preserve the model's abilities."""

    weight: PositiveFloat
    """Rows per training row: 0.25 adds one after every fourth. An exhausted source starts over."""


class Data(Part):
    """The training data and the held-out data."""

    train: SourceField
    mix: Annotated[
        tuple[MixedIn, ...] | None,
        BeforeValidator(as_sequence, json_schema_input_type=tuple[MixedIn, ...] | MixedIn | None),
    ] = None
    """Other sources, by weight. Rows are chosen by hash, never held out, and never equal to a held-out row."""
    validation: HeldOut | None = None
    """A separate source, or the share of the training rows to hold out (by a seeded hash of the content)."""
    test: HeldOut | None = None
    """Not used for training or early stopping. Used to compare the base and the tuned model."""
    allow_dropped: tuple[Feature, ...] | None = None
    """Features that may be dropped if the vendor's format cannot hold them. Other such rows are rejected."""
    split_seed: Seed = 0
    """Seed for held-out shares and mixed rows. Equal rows are always in the same split."""

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        return value  # the data commands report such a name together with everything else that they find


_Words = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(as_sequence, json_schema_input_type=tuple[str, ...] | str),
]


class JudgeSettings(Part):
    """A model that judges the answers."""

    model: Annotated[str, Field(min_length=1)]
    """``BACKEND=MODEL``, a job, or a folder with a model."""
    rubric: Annotated[str, Field(min_length=1)] | None = None
    """The file with what a good answer has. Without it, the judge compares each answer with the base model's."""
    human_labels: Annotated[str, Field(min_length=1)] | None = None
    """The file with labels of people, with which the judge is checked and its rates are corrected."""


class EvaluationSettings(Part):
    """What to measure after the job has succeeded. ``evaluation: test.jsonl`` is short for its ``data``."""

    data: SourceField | None = None
    """Held-out rows with their expected answers. Default: ``data.test``."""
    metrics: _Words = ()
    """Names of metrics, the deciding one first. Default: chosen from the rows."""
    baselines: bool = True
    """Compare with the base model, and with the most frequent label or a copy of the source."""
    few_shot: Annotated[NaturalInt, Field(le=64)] = 0
    """Also compare with the base model after this many training rows as examples."""
    against: _Words = ()
    """Also compare with the models of these jobs: references or names."""
    max_cost_usd: PositiveFloat | None = None
    """Ask nothing if the answers may cost more, or if their price is unknown."""
    judge: Annotated[JudgeSettings, short("model", JudgeSettings | str)] | None = None
    """Also let a model judge the answers."""
    guard: SourceField | None = None
    """General rows that show what the model has forgotten: the base and the tuned model answer them."""
    max_rows: PositiveInt | None = None
    """Use at most this many rows of ``data``, and of ``guard``, chosen by content and ``seed``."""
    max_tokens: PositiveInt | None = None
    """Limit of each answer. Default: from the length of the expected answers."""
    group: str | None = None
    """The field of the rows that names their source: rows with one source are resampled together."""
    seed: Seed = 0
    """Of resampling, and of the choice of rows and examples."""


Tag = Annotated[str, Field(max_length=256)]
_NAME = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9])*")


def _name(value: str) -> str:
    if len(value) > 40 or not _NAME.fullmatch(value):
        raise ValueError("use at most 40 letters and digits, separated by single hyphens")
    return value


class JobSpec(Part):
    """One fine-tuning job: model, data, method and hyperparameters, with the same meaning on every back end.

    Settings of one back end are in ``overrides[back end]``. They are validated against that back end's schema.
    """

    version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, AfterValidator(_name)] = "job"
    """Shown in lists, and part of names at the vendor."""
    backend: str | None = None
    """Default back end. The command line and the environment override it. Not part of the job's identity."""
    model: Annotated[str, Field(min_length=1)] | dict[str, str]
    """The base model, or one per back end: ``{local: ./smollm2, openai: gpt-4.1-mini-2025-04-14}``."""
    method: Annotated[Method, short("name", Method | MethodName)] = Method()
    data: Data
    adapter: Annotated[Adapter, short("type", Adapter | AdapterName)] | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    layers: Annotated[Layers | None, BeforeValidator(lambda value: value or None)] = None
    distributed: Annotated[
        Distributed | None,
        BeforeValidator(lambda value: value or None),
        short("strategy", Distributed | StrategyName | None),
    ] = None
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    evaluation: Annotated[EvaluationSettings, short("data", EvaluationSettings | str)] | None = None
    """Measured on this machine after the job has succeeded. Not part of the job's identity."""
    tune: Tune | None = None
    """The search of `cloudtune tune`. A single job does not use it."""
    tags: dict[Annotated[str, Field(min_length=1, max_length=64)], Tag] = {}
    seed: Seed | None = None
    overrides: dict[str, dict[str, Any]] = {}
    """Settings per back end, which override the portable ones."""
    unsupported: Literal["refuse", "drop"] = "refuse"
    """What to do with a field that the back end does not support. The plan lists dropped fields."""

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, folder: Path | None = None) -> JobSpec:
        """Create a spec from plain values, as they are in a file. Raises SpecError with all problems.

        Args:
            values: The fields, with the short forms of a file: ``{"method": "sft", "data": {"train": "rows.jsonl"}}``.
            folder: What relative paths are relative to. Default: the working directory.
        """
        from cloudtune.document.specfile import parse_spec  # the parser is in a layer above this one

        return parse_spec(values, folder=folder)

    @model_validator(mode="after")
    def _has_rows_to_evaluate(self) -> Self:
        if self.evaluation is not None and self.evaluation.data is None and self.data.test is None:
            raise ValueError("evaluation has no rows; set evaluation.data or data.test")
        return self

    def model_for(self, backend: str) -> str | None:
        """Return the base model for that back end, or None if the spec has none."""
        return self.model if isinstance(self.model, str) else self.model.get(backend)

    def requested_fields(self) -> dict[str, Any]:
        """Return the features that the spec uses, with values: ``method:sft``, ``hyperparameters.epochs`` -> value.

        ``Capabilities`` uses the same names. Fields that are left out are not included.
        """
        found: dict[str, Any] = {f"method:{self.method.name}": self.method.name}
        if self.adapter is not None:
            found[f"adapter:{self.adapter.type}"] = self.adapter.type
        for part, skip in _ASKED_PARTS.items():
            value = getattr(self, part)
            if value is not None:
                found |= {
                    f"{part}.{name}": getattr(value, name)
                    for name in type(value).model_fields
                    if name not in skip and getattr(value, name) is not None
                }
        found |= {name: getattr(self, name) for name in ("seed", "tags") if getattr(self, name) not in (None, {})}
        return found


_ASKED_PARTS: dict[str, tuple[str, ...]] = {
    "method": ("name",),
    "adapter": ("type",),
    "hyperparameters": (),
    "layers": (),
    "distributed": (),
    "validation": (),
    "checkpoints": (),
    "limits": ("stall_after", "max_cost_usd"),  # core handles both, on any back end
    "data": ("train", "mix", "allow_dropped", "split_seed"),  # core reads, mixes and splits the rows, for any back end
}


def spec_features() -> tuple[str, ...]:
    """Return every feature name that a spec can use. A back end declares each as supported, or why not."""
    parts: dict[str, type[Part]] = {
        "method": Method, "adapter": Adapter, "hyperparameters": Hyperparameters, "layers": Layers,
        "distributed": Distributed, "validation": Validation, "checkpoints": Checkpoints, "limits": Limits,
        "data": Data,
    }  # fmt: skip
    names = [f"method:{name}" for name in METHODS]
    names += [f"adapter:{name}" for name in AdapterName.__args__]  # type: ignore[attr-defined]
    for part, cls in parts.items():
        names += [f"{part}.{name}" for name in cls.model_fields if name not in _ASKED_PARTS[part]]
    return (*names, "seed", "tags")
