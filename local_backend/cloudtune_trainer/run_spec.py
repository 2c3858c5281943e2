"""``spec.json`` as validated, frozen values. The back end resolves every default before it writes the file.

Standard library only, so that a wrong spec is refused before torch is imported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloudtune_trainer.adapters import ADAPTERS, MOVES_BASE
from cloudtune_trainer.classification_spec import Classification, classification_faults
from cloudtune_trainer.distributed_spec import Distributed, distributed_faults, sharding_faults
from cloudtune_trainer.embedding_spec import Embedding, embedding_faults
from cloudtune_trainer.folder import SPEC_VERSION
from cloudtune_trainer.heads import HEADS
from cloudtune_trainer.policy_spec import Policy, policy_faults
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.spec_trained import Adapter, Layers, faults_of_layers
from cloudtune_trainer.spec_values import SMALLEST, read_values

TASKS = {
    "sft": "causal_lm", "cpt": "causal_lm",
    "dpo": "preference", "ipo": "preference", "orpo": "preference", "simpo": "preference",
    "grpo": "policy_optimization", "rloo": "policy_optimization", "ppo": "policy_optimization",
    "distill": "distillation",
    "kto": "unpaired_preference", "reward": "reward_model",
    "classification": "sequence_classification", "token_classification": "token_classification",
    "question_answering": "question_answering", "seq2seq": "seq2seq", "embedding": "text_embedding",
    "image_classification": "image_classification", "speech_recognition": "speech_recognition",
}  # fmt: skip
"""Method -> the task that trains it, in ``tasks``."""
CLASSIFYING = ("sequence_classification", "image_classification")
"""Tasks that use `RunSpec.classification`."""
SMOOTHED = ("causal_lm", "seq2seq", "token_classification")
"""Tasks that use `RunSpec.label_smoothing`."""
WITH_REFERENCE = ("dpo", "ipo", "kto", "grpo", "rloo", "ppo")
"""Methods that compare the trained model with the base model, that is with the adapter disabled."""


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
    neftune_alpha: float | None = None
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
    desirable_weight: float = 1.0
    """KTO's factor of the losses of answers rated good."""
    undesirable_weight: float = 1.0
    """KTO's factor of the losses of answers rated bad."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Additional settings of distillation."""

    path: str
    """The folder of the teacher's model."""
    fingerprint: str | None = None
    """Its fingerprint when the job was planned."""
    temperature: float = 1.0


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
class RateRange:
    """A learning-rate range test instead of training: the rates of its first and last step."""

    first: float
    last: float


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
    label_smoothing: float = 0.0
    """For methods that predict tokens or tags: the share of the target probability that is divided among all of them.
    Evaluations have none."""
    preference: Preference | None = None
    """Set if, and only if, the method learns from pairs of answers or from rated ones."""
    classification: Classification = field(default_factory=Classification)
    policy: Policy | None = None
    """Set if, and only if, the method samples completions and learns from their rewards."""
    embedding: Embedding | None = None
    """Set if, and only if, the method learns vectors of texts."""
    teacher: Teacher | None = None
    """Set if, and only if, the method learns from a teacher's distributions."""
    adapter: Adapter = field(default_factory=Adapter)
    hyperparameters: Hyperparameters = Hyperparameters()
    layers: Layers = field(default_factory=Layers)
    distributed: Distributed = field(default_factory=Distributed)
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    learning_rate_range: RateRange | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None
    log_every: int = 1
    group_by_length: bool = False
    """Whether the rows of a step have similar lengths. Only rows that are not packed are padded."""
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
    spec = read_values(RunSpec, {key: value for key, value in document.items() if key != "raw"}, "", faults)
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
    if hyper.neftune_alpha is not None and not 0 < hyper.neftune_alpha < float("inf"):
        found.append(f"hyperparameters.neftune_alpha must be a positive, finite number, not {hyper.neftune_alpha}")
    positive = {"learning_rate": hyper.learning_rate, "epochs": hyper.epochs, "adam_epsilon": hyper.adam_epsilon}
    for name, number in positive.items():
        if not 0 < number < float("inf"):
            found.append(f"hyperparameters.{name} must be a positive, finite number, not {number}")
    found += _faults_of_preference(spec)
    found += (
        _faults_of_classification(spec)
        + _faults_of_policy(spec)
        + _faults_of_teacher(spec)
        + _faults_of_embedding(spec)
    )
    if TASKS[spec.method] in (*HEADS, "distillation") and spec.hyperparameters.packing:
        found.append(f"hyperparameters.packing: rows are not packed for {spec.method}")
    found += _faults_of_adapter(spec)
    found += faults_of_layers(spec.layers)
    found += distributed_faults(spec.distributed) + sharding_faults(spec, TASKS[spec.method])
    found += _faults_of_smoothing(spec) + _faults_of_range(spec)
    if not 0 <= spec.seed < 1 << 32:
        found.append("seed must be at least 0 and less than 2**32")
    if spec.group_by_length and spec.hyperparameters.packing:
        found.append("group_by_length: packed rows are not padded, so their lengths do not matter")
    if spec.log_every < 1:
        found.append("log_every must be at least 1")
    if isinstance(spec.validation.every, int) and spec.validation.every < 1:
        found.append("validation.every must be at least 1")
    if isinstance(spec.checkpoints.every, int) and spec.checkpoints.every < 1:
        found.append("checkpoints.every must be at least 1")
    if spec.model.source != "hub" and not Path(spec.model.path).is_absolute():
        found.append("model.path must be absolute")
    return found


def _faults_of_smoothing(spec: RunSpec) -> list[str]:
    if spec.label_smoothing and TASKS[spec.method] not in SMOOTHED:
        return [f"label_smoothing: the method {spec.method} does not use it"]
    if not 0 <= spec.label_smoothing < 1:
        return [f"label_smoothing must be at least 0 and less than 1, not {spec.label_smoothing}"]
    return []


def _faults_of_range(spec: RunSpec) -> list[str]:
    rates = spec.learning_rate_range
    if rates is None:
        return []
    if not 0 < rates.first < rates.last < float("inf"):
        return ["learning_rate_range: the first rate must be positive, and lower than the last one"]
    if TASKS[spec.method] == "policy_optimization":
        return [f"learning_rate_range: the loss of {spec.method} does not show whether it learns"]
    return []


def _faults_of_preference(spec: RunSpec) -> list[str]:
    terms, prefers = spec.preference, TASKS[spec.method] in ("preference", "unpaired_preference")
    if (terms is not None) is not prefers:
        return [f"preference: the method {spec.method} {'requires it' if prefers else 'does not use it'}"]
    if terms is None:
        return []
    found = []
    if not 0 < terms.beta < float("inf"):
        found.append(f"preference.beta must be a positive, finite number, not {terms.beta}")
    if not 0 <= terms.label_smoothing < 0.5:
        found.append(f"preference.label_smoothing must be at least 0 and less than 0.5, not {terms.label_smoothing}")
    found += [
        f"preference.{name} must be at least 0 and finite, not {value}"
        for name in ("margin", "desirable_weight", "undesirable_weight")
        if not 0 <= (value := getattr(terms, name)) < float("inf")
    ]
    if spec.hyperparameters.packing:
        found.append("hyperparameters.packing: preference rows cannot be packed")
    if spec.loss_on == "all":
        found.append("loss_on: preference methods train on the answers only")
    return found


def _faults_of_classification(spec: RunSpec) -> list[str]:
    terms = spec.classification
    if terms == Classification():
        return []
    if TASKS[spec.method] not in CLASSIFYING:
        return [f"classification: the method {spec.method} does not use it"]
    return classification_faults(terms)


def _faults_of_policy(spec: RunSpec) -> list[str]:
    terms, online = spec.policy, TASKS[spec.method] == "policy_optimization"
    if (terms is not None) is not online:
        return [f"policy: the method {spec.method} {'requires it' if online else 'does not use it'}"]
    if terms is None:
        return []
    found = policy_faults(terms, one_each=spec.method == "ppo")
    if terms.max_new_tokens >= spec.hyperparameters.max_length:
        found.append("policy.max_new_tokens leaves no token of hyperparameters.max_length to the prompt")
    if spec.hyperparameters.packing:
        found.append("hyperparameters.packing: completions are not packed")
    if terms.normalization != "tokens" and spec.method != "grpo":
        found.append(f"policy.normalization: the method {spec.method} does not use it")
    return found


def _faults_of_teacher(spec: RunSpec) -> list[str]:
    needed = TASKS[spec.method] == "distillation"
    if (spec.teacher is not None) is not needed:
        return [f"teacher: the method {spec.method} {'requires it' if needed else 'does not use it'}"]
    if spec.teacher is not None and not SMALLEST <= spec.teacher.temperature < float("inf"):
        return [f"teacher.temperature must be at least {SMALLEST} and finite, not {spec.teacher.temperature}"]
    return []


def _faults_of_embedding(spec: RunSpec) -> list[str]:
    needed = TASKS[spec.method] == "text_embedding"
    if (spec.embedding is not None) is not needed:
        return [f"embedding: the method {spec.method} {'requires it' if needed else 'does not use it'}"]
    return [] if spec.embedding is None else embedding_faults(spec.embedding)


def _faults_of_adapter(spec: RunSpec) -> list[str]:
    kind, hyper, found = ADAPTERS[spec.adapter.type], spec.hyperparameters, []
    if hyper.packing and not kind.can_pack:
        found.append(f"hyperparameters.packing: rows with a {spec.adapter.type} adapter are not packed")
    if hyper.gradient_checkpointing and not kind.can_checkpoint:
        found.append(f"hyperparameters.gradient_checkpointing: not possible with a {spec.adapter.type} adapter")
    sizes = [name for name in ("virtual_tokens", "bottleneck_size", "rank") if getattr(spec.adapter, name) < 1]
    found += [f"adapter.{name} must be at least 1" for name in sizes]
    changes = spec.adapter.bias != "none" or spec.adapter.init in MOVES_BASE
    if changes and spec.method in WITH_REFERENCE:
        field = "bias" if spec.adapter.bias != "none" else "init"
        found.append(f"adapter.{field}: {spec.method} compares with the base model, whose weights this would change")
    compares = spec.method in WITH_REFERENCE and (spec.policy is None or spec.policy.beta > 0)
    if spec.adapter.path is not None and compares:
        what = f"{spec.method} would compare with the bare base model, without this adapter"
        found.append(f"adapter.path: {what}; merge it into the base model first, then train a new one")
    return found
