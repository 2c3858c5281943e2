"""``spec.json`` as validated, frozen values. The back end resolves every default before it writes the file.

Standard library only, so that a wrong spec is refused before torch is imported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.folder import SPEC_VERSION
from cloudtune_trainer.heads import HEADS
from cloudtune_trainer.problems import TrainingProblem

TASKS = {
    "sft": "causal_lm", "cpt": "causal_lm",
    "dpo": "preference", "ipo": "preference", "orpo": "preference", "simpo": "preference",
    "classification": "sequence_classification", "token_classification": "token_classification",
    "question_answering": "question_answering", "seq2seq": "seq2seq",
}  # fmt: skip
"""Method -> the task that trains it, in ``tasks``."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """The source of the base model."""

    source: Literal["folder", "gguf", "hub", "config"]
    path: str
    """An absolute path, or the hub's id."""
    revision: str | None = None
    fingerprint: str | None = None
    """Fingerprint of a folder or a GGUF file when the job was planned: see `cloudtune_trainer.fingerprint`."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which weights are trained."""

    type: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    virtual_tokens: int = 20


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Hyperparameters, with the names and meanings of the job's specification."""

    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-4
    scheduler: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: int | None = None
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    dropout: float | None = None
    max_grad_norm: float = 1.0
    max_length: int = 1024
    packing: bool = True
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False

    @property
    def token_budget(self) -> int:
        """Tokens per evaluation batch: as many as in a part of a training step."""
        return self.max_length * max(1, self.batch_size // self.gradient_accumulation_steps)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Additional settings of preference methods."""

    loss: Literal["sigmoid", "hinge"] = "sigmoid"
    """The loss of DPO; the other methods have one each."""
    beta: float = 0.1
    """Strength of the reference term; IPO's tau, ORPO's lambda."""
    label_smoothing: float = 0.0
    """The assumed share of pairs with swapped labels."""
    margin: float = 0.0
    """SimPO's gamma: the target margin of the chosen answer's reward."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when the validation metric that chooses the best checkpoint no longer improves."""

    patience: int = 3
    min_delta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When to evaluate the validation rows."""

    every: Literal["epoch", "never"] | int = "epoch"
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When to save checkpoints. The best, the last and ``keep`` others are retained."""

    every: Literal["epoch"] | int = "epoch"
    keep: int = 0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resources of the run."""

    max_time: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Canonical records; paths are relative to the run folder."""

    train: str
    validation: str | None = None
    test: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The whole document."""

    version: int
    model: ModelSource
    data: DataFiles
    name: str = "job"
    method: str = "sft"
    loss_on: Literal["assistant", "last_assistant", "all"] = "assistant"
    preference: Preference | None = None
    """Set if, and only if, the method learns from pairs of answers."""
    adapter: Adapter = Adapter()
    hyperparameters: Hyperparameters = Hyperparameters()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None
    log_every: int = 1
    resume_from: str | None = None
    """A checkpoint folder of another run from which this one starts."""
    trust_remote_code: bool = False
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


def read_spec(document: Any) -> RunSpec:
    """Validate the document. Raises `TrainingProblem` ``bad_spec`` that lists every error."""
    if not isinstance(document, dict):
        raise TrainingProblem("bad_spec", "spec.json is missing or is not an object")
    version = document.get("version")
    if version != SPEC_VERSION:
        raise TrainingProblem(
            "bad_spec",
            f"spec.json has version {version!r}; this trainer supports version {SPEC_VERSION}",
            "Use the trainer of the cloudtune version that wrote it.",
        )
    faults = _unknown_names(document)
    spec = _read(RunSpec, {key: value for key, value in document.items() if key != "raw"}, "", faults)
    if spec is not None and not faults:
        faults = _faults(spec)
    if faults:
        raise TrainingProblem("bad_spec", "spec.json: " + "; ".join(faults))
    return dataclasses.replace(spec, raw=document)  # type: ignore[no-any-return]


def _unknown_names(document: dict[str, Any]) -> list[str]:
    """Errors for a method or an adapter that this trainer does not support."""
    adapter = document.get("adapter")
    kind = adapter.get("type") if isinstance(adapter, dict) else None
    return [
        f"{field}: {value!r} is not one of {', '.join(known)}"
        for field, value, known in (("method", document.get("method"), TASKS), ("adapter.type", kind, ADAPTERS))
        if isinstance(value, str) and value not in known
    ]


def _faults(spec: RunSpec) -> list[str]:
    """Checks beyond the types."""
    found = []
    hyper = spec.hyperparameters
    at_least_one = {
        "batch_size": hyper.batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation_steps,
        "max_length": hyper.max_length - 1,  # a single token has no token to predict
        "max_steps": hyper.max_steps if hyper.max_steps is not None else 1,
    }
    found += [f"hyperparameters.{name} is too small" for name, value in at_least_one.items() if value < 1]
    positive = {"learning_rate": hyper.learning_rate, "epochs": hyper.epochs, "adam_epsilon": hyper.adam_epsilon}
    for name, number in positive.items():
        if not 0 < number < float("inf"):
            found.append(f"hyperparameters.{name} must be a positive, finite number, not {number}")
    found += _faults_of_pairs(spec)
    if TASKS[spec.method] in HEADS and spec.hyperparameters.packing:
        found.append(f"hyperparameters.packing: rows are not packed for {spec.method}")
    found += _faults_of_adapter(spec)
    if not 0 <= spec.seed < 1 << 32:
        found.append("seed must be at least 0 and less than 2**32")
    if spec.log_every < 1:
        found.append("log_every must be at least 1")
    if isinstance(spec.validation.every, int) and spec.validation.every < 1:
        found.append("validation.every must be at least 1")
    if isinstance(spec.checkpoints.every, int) and spec.checkpoints.every < 1:
        found.append("checkpoints.every must be at least 1")
    if spec.model.source != "hub" and not Path(spec.model.path).is_absolute():
        found.append("model.path must be absolute")
    return found


def _faults_of_pairs(spec: RunSpec) -> list[str]:
    terms, by_pairs = spec.preference, TASKS[spec.method] == "preference"
    if (terms is not None) is not by_pairs:
        return [f"preference: the method {spec.method} {'requires it' if by_pairs else 'does not use it'}"]
    if terms is None:
        return []
    found = []
    if not 0 < terms.beta < float("inf"):
        found.append(f"preference.beta must be a positive, finite number, not {terms.beta}")
    if not 0 <= terms.label_smoothing < 0.5:
        found.append(f"preference.label_smoothing must be at least 0 and less than 0.5, not {terms.label_smoothing}")
    if not 0 <= terms.margin < float("inf"):
        found.append(f"preference.margin must be at least 0 and finite, not {terms.margin}")
    if spec.hyperparameters.packing:
        found.append("hyperparameters.packing: preference pairs cannot be packed")
    if spec.loss_on == "all":
        found.append("loss_on: preference methods train on the answers only")
    return found


def _faults_of_adapter(spec: RunSpec) -> list[str]:
    kind, hyper, found = ADAPTERS[spec.adapter.type], spec.hyperparameters, []
    if hyper.packing and not kind.can_pack:
        found.append(f"hyperparameters.packing: rows with a {spec.adapter.type} adapter are not packed")
    if hyper.gradient_checkpointing and not kind.can_checkpoint:
        found.append(f"hyperparameters.gradient_checkpointing: not possible with a {spec.adapter.type} adapter")
    if spec.adapter.virtual_tokens < 1:
        found.append("adapter.virtual_tokens must be at least 1")
    return found


def _read(cls: type, document: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(document, dict):
        faults.append(f"{where or 'spec'} must be an object")
        return None
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    faults += [f"{where}{key}: unknown key" for key in document if key not in known]
    values = {}
    for item in dataclasses.fields(cls):
        place = f"{where}{item.name}"
        if item.name not in document:
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                faults.append(f"{place}: missing")
            continue
        ok, value = _convert(hints[item.name], document[item.name], place, faults)
        if ok:
            values[item.name] = value
        else:
            faults.append(f"{place}: invalid value {document[item.name]!r}")
    if faults:
        return None
    return cls(**values)


def _convert(hint: Any, value: Any, place: str, faults: list[str]) -> tuple[bool, Any]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for option in get_args(hint):
            ok, converted = _convert(option, value, place, faults)
            if ok:
                return True, converted
        return False, None
    if origin is Literal:
        return value in get_args(hint) and not isinstance(value, bool), value
    if origin is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
        return fits, tuple(value) if fits else None
    if hint is type(None):
        return value is None, None
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            return False, None
        return True, _read(hint, value, f"{place}.", faults)  # type: ignore[arg-type]
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool), value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value
