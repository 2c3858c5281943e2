"""JobSpec and its parts: what to train. Where to train is one word beside it (``config``).

Frozen pydantic models that accept no unknown key. A value left out is None and means "the back end's own default",
which the plan shows with its source; it never means zero. Reading a spec from a file is ``specfile``'s work.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cloudtune.clock import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC_VERSION = 1
MOST_EPOCHS = 10_000
"""More is surely a slip of the hand."""

MethodName = Literal[
    "sft", "cpt", "dpo", "ipo", "orpo", "simpo", "kto", "reward", "grpo", "rloo", "rft", "distill", "classification",
    "token_classification", "question_answering", "seq2seq", "image_classification", "speech_recognition",
]  # fmt: skip
AdapterName = Literal[
    "full", "lora", "qlora", "dora", "ia3", "prefix", "prompt", "p_tuning", "bottleneck", "head_only",
]  # fmt: skip
DataKind = Literal[
    "auto", "chat", "prompt_completion", "prompt", "instruction", "text", "instruction_response", "sharegpt", "dialog",
    "claude", "converse", "preference", "openai_preference", "nova_preference", "rated", "item", "reward", "input_text",
    "text_label", "tags", "question", "pair", "image_label", "speech",
]  # fmt: skip
Feature = Literal[
    "system", "turns", "tools", "images", "videos", "bucket_owners", "media_formats", "parts", "weights", "thoughts",
    "names", "fields",
]  # fmt: skip
FileFormat = Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "text"]


def _not_bool(value: Any) -> Any:
    # pydantic would read `epochs: yes` as 1; a person who writes that has made a mistake.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return _not_bool(value)
    return duration(value)


LARGEST_INT = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly."""
LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger seed (numpy.org, RandomState.seed, seen 2026-11-28)."""

PositiveInt = Annotated[int, BeforeValidator(_not_bool), Field(gt=0, le=LARGEST_INT)]
NaturalInt = Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=LARGEST_INT)]
Seed = Annotated[int, BeforeValidator(_not_bool), Field(ge=0, le=LARGEST_SEED)]
PositiveFloat = Annotated[float, BeforeValidator(_not_bool), Field(gt=0, allow_inf_nan=False)]
NaturalFloat = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, allow_inf_nan=False),
]


def _short(key: str, accepts: Any) -> Any:
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=accepts
    )


class Part(BaseModel):
    """Base of the spec's parts: frozen, and no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        # No file system, database or vendor takes one.
        place = next(_nul_places(value, ""), None)
        if place is not None:
            raise ValueError(f"a NUL character is not allowed{f', in {place}' if place else ''}")
        return value


def _nul_places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str) and "\0" in value:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nul_places(key, place)
            yield from _nul_places(item, f"{place}.{key}".strip("."))
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _nul_places(item, f"{place}.{number}".strip("."))


class Method(Part):
    """What is learnt. ``method: sft`` is short for ``method: {name: sft}``."""

    name: MethodName = "sft"
    loss_on: Literal["assistant", "last_assistant", "all"] | None = None
    """Which tokens the loss falls on: every assistant turn, the last one, or every token of the record."""
    beta: PositiveFloat | None = None
    """Strength of the pull towards the reference model, for preference methods."""


class Adapter(Part):
    """Which weights move. ``adapter: lora`` is short for ``adapter: {type: lora}``."""

    type: AdapterName = "lora"
    rank: PositiveInt | None = None
    """LoRA's r."""
    alpha: PositiveFloat | None = None
    """LoRA's scale: the update is multiplied by alpha / rank."""
    dropout: Fraction | None = None
    """Dropout on the adapter's input."""
    targets: Literal["all-linear"] | tuple[str, ...] | None = None
    """Names of the modules that get an adapter, or ``all-linear``."""


class Hyperparameters(Part):
    """How it is learnt. None = the back end's own default, shown in the plan."""

    epochs: Annotated[PositiveFloat, Field(le=MOST_EPOCHS)] | None = None
    """Passes over the training rows; a fraction is allowed where the back end allows it."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps, whatever ``epochs`` says."""
    batch_size: PositiveInt | None = None
    """Sequences in one optimizer step, over all devices and accumulation steps."""
    gradient_accumulation_steps: PositiveInt | None = None
    """In how many parts a batch is computed: more parts, less memory, same result."""
    learning_rate: PositiveFloat | None = None
    """The peak rate, absolute. (Back ends that take a multiplier say so, and take it in ``overrides``.)"""
    scheduler: Literal["constant", "linear", "cosine"] | None = None
    """How the rate falls after warm-up."""
    warmup_steps: NaturalInt | None = None
    warmup_ratio: Fraction | None = None
    """Warm-up as a share of all steps; not together with ``warmup_steps``."""
    weight_decay: NaturalFloat | None = None
    adam_beta1: Fraction | None = None
    adam_beta2: Fraction | None = None
    adam_epsilon: PositiveFloat | None = None
    dropout: Fraction | None = None
    """Dropout of the model itself (attention, residual), where it has any; the adapter has its own."""
    max_grad_norm: NaturalFloat | None = None
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    max_length: PositiveInt | None = None
    """Tokens in one sequence at the most."""
    packing: bool | None = None
    """Fill each sequence with several short records, none of which sees another."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    gradient_checkpointing: bool | None = None
    """Compute activations again in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("set warmup_steps or warmup_ratio, not both")
        return self


class EarlyStopping(Part):
    """Stop when the validation loss has not improved for ``patience`` evaluations."""

    patience: PositiveInt = 3
    min_delta: NaturalFloat = 0.0
    """An improvement counts when it is larger than this."""


class Validation(Part):
    """When the validation rows are looked at."""

    every: Literal["epoch", "never"] | PositiveInt | None = None
    """``epoch``, ``never``, or a number of steps."""
    early_stopping: EarlyStopping | None = None


class Checkpoints(Part):
    """When the state is kept. The best and the last checkpoint are always kept."""

    every: Literal["epoch"] | PositiveInt | None = None
    """``epoch``, or a number of steps."""
    keep: NaturalInt | None = None
    """How many others than the best and the last."""


class Limits(Part):
    """What the job may use at the most."""

    max_time: Seconds | None = None
    """Training time, e.g. ``2h``. A job stopped by it is ``expired`` and keeps its best checkpoint where it can."""
    max_cost_usd: PositiveFloat | None = None
    """Refused by back ends whose cost is not known yet."""
    stall_after: Seconds | None = None
    """Running, but no new step or event for this long: the watch says so."""


def _columns(key: str, text: str) -> list[str]:
    """The columns that a template names. Raises ValueError."""
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
    """Where rows come from. ``train: rows.jsonl`` is short for ``train: {path: rows.jsonl}``."""

    path: str | tuple[str, ...]
    """A file or several; relative paths count from the spec file's folder."""
    format: FileFormat = "auto"
    kind: DataKind = "auto"
    columns: dict[str, str] = {}
    """The file's column -> the name that cloudtune knows, e.g. ``{question: prompt, answer: completion}``."""
    template: Annotated[dict[str, str] | None, _short("text", dict[str, str] | str)] = None
    """Rows made of columns: ``{prompt: "Q: {question}", completion: "{answer}"}``, or one text alone for plain text."""

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
        named = [name for key, text in self.template.items() for name in _columns(key, text)]
        if not named:
            raise ValueError("the template uses no column; write for example {question}")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path


def _source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | list | tuple) else value


SourceField = Annotated[Source, BeforeValidator(_source, json_schema_input_type=Source | str | list[str])]
HeldOut = Annotated[
    Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | Source,
    BeforeValidator(_source, json_schema_input_type=float | Source | str | list[str]),
]


class MixedIn(Source):
    """Other rows between the training rows, e.g. general ones, so that what the model could do is not forgotten."""

    weight: PositiveFloat
    """Rows for each training row: 0.25 puts one behind every fourth. A source that is used up begins again."""


def _sequence(value: Any) -> Any:
    return [value] if isinstance(value, dict | MixedIn) else value


class Data(Part):
    """The rows to learn from, and the rows held out."""

    train: SourceField
    mix: Annotated[
        tuple[MixedIn, ...] | None,
        BeforeValidator(_sequence, json_schema_input_type=tuple[MixedIn, ...] | MixedIn | None),
    ] = None
    """Other sources by weight. The rows are chosen by their hashes, and never held out; equal rows that fall on a
    held-out side are left out."""
    validation: HeldOut | None = None
    """A source of its own, or the share of the training rows to hold out (by hash of the content, seeded)."""
    test: HeldOut | None = None
    """Never seen in training nor in early stopping; the base and the tuned model are compared on it."""
    allow_dropped: tuple[Feature, ...] | None = None
    """What of the rows may be lost where a vendor's format cannot carry it; else such rows are refused."""
    split_seed: Seed = 0
    """Seed of the held-out shares and of what is mixed in; equal rows always fall on the same side."""

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        return value  # the data commands report such a name together with everything else that they find


Tag = Annotated[str, Field(max_length=256)]
_NAME = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9])*")


def _name(value: str) -> str:
    if len(value) > 40 or not _NAME.fullmatch(value):
        raise ValueError("use at most 40 letters and digits, separated by single hyphens")
    return value


class JobSpec(Part):
    """One job: what to learn, from which rows, on which model.

    The same spec means the same training on every back end; what a back end says in its own way goes into
    ``overrides[back end]`` and is checked against that back end's own schema.
    """

    version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, AfterValidator(_name)] = "job"
    """Shown in lists, and part of the names that the vendor sees."""
    backend: str | None = None
    """Where, unless the command line or the environment says otherwise. Not part of the job's identity as a spec."""
    model: Annotated[str, Field(min_length=1)] | dict[str, str]
    """The base model, or one for each back end: ``{local: ./smollm2, openai: gpt-4.1-mini-2025-04-14}``."""
    method: Annotated[Method, _short("name", Method | MethodName)] = Method()
    data: Data
    adapter: Annotated[Adapter, _short("type", Adapter | AdapterName)] | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    tags: dict[Annotated[str, Field(min_length=1, max_length=64)], Tag] = {}
    seed: Seed | None = None
    overrides: dict[str, dict[str, Any]] = {}
    """Per back end: settings in its own words, which win over the portable ones."""
    unsupported: Literal["refuse", "drop"] = "refuse"
    """What to do with a field that the back end cannot apply. Each drop stands in the plan."""

    def model_for(self, backend: str) -> str | None:
        """The base model to use on that back end, or None where the spec names none for it."""
        return self.model if isinstance(self.model, str) else self.model.get(backend)

    def asked(self) -> dict[str, Any]:
        """Every choice that the spec makes, by feature name: ``method:sft``, ``hyperparameters.epochs`` -> value.

        These are the names that ``Capabilities`` answers for. What was left out is not in it.
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
    "validation": (),
    "checkpoints": (),
    "limits": ("stall_after",),  # the watch's own business, on any back end
    "data": ("train", "mix", "allow_dropped", "split_seed"),  # core reads, mixes and splits the rows, for any back end
}


def spec_features() -> tuple[str, ...]:
    """Every feature name that a spec can ask for; a back end answers for each: supported, or why not."""
    parts: dict[str, type[Part]] = {
        "method": Method, "adapter": Adapter, "hyperparameters": Hyperparameters, "validation": Validation,
        "checkpoints": Checkpoints, "limits": Limits, "data": Data,
    }  # fmt: skip
    names = [f"method:{name}" for name in MethodName.__args__]  # type: ignore[attr-defined]
    names += [f"adapter:{name}" for name in AdapterName.__args__]  # type: ignore[attr-defined]
    for part, cls in parts.items():
        names += [f"{part}.{name}" for name in cls.model_fields if name not in _ASKED_PARTS[part]]
    return (*names, "seed", "tags")
