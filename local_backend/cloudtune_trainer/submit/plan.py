"""Creates the ``spec.json`` of cloudtune's own trainer from a JobSpec. Pure.

The back ends that run this trainer (on this machine, in a cloud's container) share this module, so that the same spec
gives the same training: the same defaults, each with its source, and the same errors.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem
from cloudtune.methods import METHODS, TRAINER_TASKS, methods_of
from cloudtune.plan import RowLimit, Setting
from cloudtune.spec import spec_features
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.heads import HEADS
from cloudtune_trainer.run_spec import SMOOTHED
from cloudtune_trainer.spec_values import SMALLEST
from cloudtune_trainer.submit import distillation, distributed, embedding, policy
from cloudtune_trainer.submit.adapter_facts import given_adapter
from cloudtune_trainer.submit.adapter_problems import DEFAULT_ADAPTER, adapter_problems
from cloudtune_trainer.submit.layers import layer_problems, layer_settings, schedule_problems
from cloudtune_trainer.submit.media import media_problems, wrong_input
from cloudtune_trainer.submit.preference import PREFERRING, misused, terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec

RUN_SPEC_VERSION = 2
"""The version of ``spec.json``; the trainer refuses any other."""
FORMAT = "cloudtune"
"""The format of the trainer's rows: canonical records."""
TRAINED = methods_of(*TRAINER_TASKS)
DEFAULT_MAX_LENGTH = 1024
COMMON_OVERRIDES = ("log_every", "preference", "revision", "trust_remote_code")
"""Overrides with one meaning on all back ends that run this trainer."""
_CHARS_PER_TOKEN = 3.0

_HYPERPARAMETERS: dict[str, Any] = {
    "epochs": 1.0,
    "max_steps": None,
    "batch_size": 8,
    "gradient_accumulation_steps": 1,
    "scheduler": "linear",
    "warmup_steps": None,
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "dropout": None,
    "neftune_alpha": None,
    "max_grad_norm": 1.0,
    "precision": "auto",
    "gradient_checkpointing": False,
}
"""Fields with a constant default; None means unset."""
_NOT_READ = ("images", "videos", "parts")
"""Features of rows (see ``data.losses``) that the trainer does not support."""
_SELDOM_SHOWN = ("thoughts", "tools", "names", "tool_errors", "parallel_tool_calls")
"""Features that reach the model only if its chat template renders them."""
_NOT_CUT = ("token_classification", "question_answering", "seq2seq")
"""Tasks whose rows are split, or whose sides each have ``max_length`` tokens."""
_DIALOGUES = ("chat", "preference", "rated")
"""Kinds of rows that the chat template renders."""


class Choices:
    """Picks each value from the first source that sets it, and records that source."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.settings: list[Setting] = []

    def pick(self, field: str, given: Any, default: Any, why: str | None = None) -> Any:
        """The spec's value, or the default."""
        value = default if given is None else given
        if value is not None:
            value = list(value) if isinstance(value, tuple) else value
            self.settings.append(Setting(field=field, value=value, source=self._why(why) if given is None else "spec"))
        return value

    def note(self, field: str, value: Any, source: str) -> None:
        """A value that was picked elsewhere."""
        self.settings.append(Setting(field=field, value=value, source=source))

    def _why(self, why: str | None) -> str:
        return f"default of {self.backend}" if why is None else why


def run_spec(
    request: PlanRequest,
    choices: Choices,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    resume_from: Any,
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """The trainer's ``spec.json``.

    ``model`` has the properties of the base model (source, path, revision, context_length), ``data`` the path of each
    split for the trainer, and ``own`` the back end's own settings (device, threads, log_every ...).
    """
    spec = request.spec
    loss_on = "all" if METHODS[spec.method.name].every_token else "assistant"
    adapter = _adapter(request, choices)
    return {
        "version": RUN_SPEC_VERSION,
        "name": spec.name,
        "model": {"source": model["source"], "path": model["path"], "revision": model.get("revision")},
        "method": spec.method.name,
        "loss_on": choices.pick("method.loss_on", spec.method.loss_on, loss_on),
        "adapter": adapter,
        **terms(spec, choices, adapter["type"]),
        **_labels(spec, choices),
        **embedding.terms(request, choices),
        **policy.terms(spec, choices, adapter["type"], request.resolved.facts.get("reward")),
        **distillation.terms(spec, choices, request.resolved.facts.get("teacher")),
        "hyperparameters": _hyperparameters(request, choices, adapter["type"], model),
        **layer_settings(spec, choices, adapter["type"], model),
        **distributed.settings(spec, choices),
        "validation": _validation(request, choices),
        "checkpoints": {
            "every": choices.pick("checkpoints.every", spec.checkpoints.every, "epoch"),
            "keep": choices.pick("checkpoints.keep", spec.checkpoints.keep, 0),
        },
        "limits": {"max_time": choices.pick("limits.max_time", spec.limits.max_time, None)},
        "seed": choices.pick("seed", spec.seed, 0),
        "data": {name: data.get(name) for name in ("train", "validation", "test")},
        "resume_from": resume_from,
        **own,
    }


def _adapter(request: PlanRequest, choices: Choices) -> dict[str, Any]:
    given = request.spec.adapter
    kind = choices.pick("adapter.type", given.type if given else None, DEFAULT_ADAPTER)
    if given is not None and given.path is not None:
        choices.note("adapter.path", given.path, "spec")
        return given_adapter(kind, request.resolved.facts["adapter"], choices)
    picked = {
        name: choices.pick(f"adapter.{name}", getattr(given, name, None), default)
        for name, default in {**ADAPTERS[kind].settings, **dict.fromkeys(ADAPTERS[kind].options)}.items()
    }
    picked = {name: value for name, value in picked.items() if value is not None}
    return {"type": kind, **picked}


def _labels(spec: JobSpec, choices: Choices) -> dict[str, Any]:
    """The parts ``classification`` and ``label_smoothing`` of the trainer's spec; nothing for other methods."""
    if METHODS[spec.method.name].task in SMOOTHED:
        smoothing = choices.pick("method.label_smoothing", spec.method.label_smoothing, None)
        return {} if smoothing is None else {"label_smoothing": smoothing}
    if spec.method.label_problem is None:
        return {}
    problem = choices.pick("method.problem", spec.method.problem, "single_label")
    found: dict[str, Any] = {"problem": problem}
    if problem == "single_label":
        found["class_weights"] = choices.pick("method.class_weights", spec.method.class_weights, None)
        found["label_smoothing"] = choices.pick("method.label_smoothing", spec.method.label_smoothing, 0.0)
    return {"classification": found}


def _hyperparameters(request: PlanRequest, choices: Choices, adapter: str, model: Mapping[str, Any]) -> dict[str, Any]:
    given = request.spec.hyperparameters
    defaults = dict(_HYPERPARAMETERS)
    if given.warmup_steps is not None:
        defaults["warmup_ratio"] = 0.0

    def pick(name: str, default: Any, why: str | None = None) -> Any:
        return choices.pick(f"hyperparameters.{name}", getattr(given, name), default, why)

    values = {name: pick(name, default) for name, default in defaults.items()}
    method = request.spec.method.name
    rate, by = ADAPTERS[adapter].learning_rate, f"{adapter} training"
    if method in PREFERRING or method in policy.POLICY:
        rate, by = ADAPTERS[adapter].preference_learning_rate, f"{by} by {method}"
    values["learning_rate"] = pick("learning_rate", rate, f"default of {choices.backend} for {by}")
    length = default_length(model)
    if METHODS[method].media is not None:
        return values | {"max_length": DEFAULT_MAX_LENGTH, "packing": False}
    values["max_length"] = pick("max_length", length, f"derived: at most {DEFAULT_MAX_LENGTH}, and the model's context")
    # With packing, `batch_size` counts full sequences instead of rows: few, large steps. This suits running text, but a
    # few hundred short dialogues would be done in two steps and learn nothing; for them it must be set in the spec.
    packs = METHODS[method].every_token and ADAPTERS[adapter].can_pack
    why = "records of running text are joined" if packs else "a step is `batch_size` rows"
    values["packing"] = pick("packing", packs, f"default of {choices.backend} for {method}: {why}")
    return values


def default_length(model: Mapping[str, Any]) -> int:
    """``max_length`` if the spec sets none."""
    return min(model.get("context_length") or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def _validation(request: PlanRequest, choices: Choices) -> dict[str, Any]:
    given = request.spec.validation
    held_out = "validation" in request.data.splits
    why = f"default of {choices.backend}" if held_out else "derived: there are no validation rows"
    stop = given.early_stopping.model_dump() if given.early_stopping else None
    return {
        "every": choices.pick("validation.every", given.every, "epoch" if held_out else "never", why),
        "early_stopping": choices.pick("validation.early_stopping", stop, None),
    }


def model_problems(request: PlanRequest, document: Mapping[str, Any], model: Mapping[str, Any]) -> list[Problem]:
    """Errors and warnings about the spec and its rows for this model and the trainer."""
    length, context = document["hyperparameters"]["max_length"], model.get("context_length")
    found = []
    if context and length > context:
        message = f"the model's context is {context} tokens, but max_length is {length}"
        fix = f"use at most {context}"
        found.append(Problem(code="too_long", field="hyperparameters.max_length", message=message, fix=fix))
    found += embedding.row_problems(request)
    found += policy.too_long(document, length, request.resolved.facts.get("reward"))
    found += [
        *wrong_input(request.spec, model),
        *_wrong_family(request, model),
        *_unknown_targets(request, model.get("modules") or ()),
    ]
    task = METHODS[request.spec.method.name].task
    found += layer_problems(request.spec, document["adapter"]["type"], model)
    chat = any(info.kind in _DIALOGUES for info in request.data.splits.values())
    if chat and task != "seq2seq" and model.get("chat_template") is False:
        message = (
            "its tokenizer has no chat template; conversations are rendered as `User: ...` and `Assistant: ...` lines"
        )
        found.append(warning("no_template", "model", message, "use an instruct model, which has a chat template"))
    if request.resolved.row_limit is None:  # else the rows themselves have been counted
        found += [_long_rows(name, info.longest_chars, length) for name, info in request.data.splits.items()
                  if info.kind in _DIALOGUES and info.longest_chars > length * _CHARS_PER_TOKEN]  # fmt: skip
    unread = {problem.field: problem for problem in request.data.problems if problem.code == "feature"}
    found += [_unreadable(unread[name]) for name in _NOT_READ if name in unread]
    shown = model.get("shown", ())
    return found + [_unseen(unread[name]) for name in _SELDOM_SHOWN if name in unread and name not in shown]


def _wrong_family(request: PlanRequest, model: Mapping[str, Any]) -> Iterator[Problem]:
    """An encoder-decoder where the method trains another kind of model, or the reverse."""
    method = request.spec.method.name
    pairs = model.get("is_encoder_decoder")
    task = METHODS[method].task
    if task == "seq2seq" and pairs is False:
        message, fix = f"{method} trains an encoder-decoder, and this model is none", "use T5, BART, Marian or the like"
        yield Problem(code="wrong_family", field="model", message=message, fix=fix)
    if task not in HEADS and pairs:
        message = f"{method} trains a causal language model, and this model is an encoder-decoder"
        yield Problem(code="wrong_family", field="model", message=message, fix="use a decoder, or method: seq2seq")
    if task == "text_embedding" and pairs:
        message = f"{method} trains an encoder or a decoder, and this model is an encoder-decoder"
        yield Problem(code="wrong_family", field="model", message=message, fix="use BERT, MiniLM or the like")


def _unknown_targets(request: PlanRequest, modules: Sequence[str]) -> list[Problem]:
    """Adapter targets without a module in the model; as in peft, a name is the end of a module's path."""
    targets = request.spec.adapter.targets if request.spec.adapter else None
    if not modules or not isinstance(targets, tuple):
        return []
    there = sorted({module.rpartition(".")[2] for module in modules})
    return [
        Problem(
            code="unknown_target", field="adapter.targets",
            message=f"the model has no module named {target!r}",
            fix=f"it has {', '.join(get_close_matches(target, there, n=3) or there)}; or use all-linear",
        )
        for target in targets
        if not any(f".{module}".endswith(f".{target}") for module in modules)
    ]  # fmt: skip


def _unreadable(feature: Problem) -> Problem:
    message = f"{feature.message}; the trainer supports text only"
    return Problem(code="not_text", field="data", message=message, fix="remove those rows, or convert them to text")


def _unseen(feature: Problem) -> Problem:
    message = f"{feature.message}; the model's chat template ignores them"
    return warning("not_shown", "data", message, "put the content to train on in the text of the messages")


def _long_rows(split: str, chars: int, length: int) -> Problem:
    message = (
        f"the longest {split} row has {chars} characters, perhaps more than {length} tokens; "
        f"longer rows are truncated, and the job's events list them"
    )
    return warning("may_be_cut", "hyperparameters.max_length", message, "raise it if the model's context allows")


def warning(code: str, field: str, message: str, fix: str) -> Problem:
    """A warning."""
    return Problem(code=code, field=field, message=message, severity="warning", fix=fix)


def unsupported_features() -> dict[str, str]:
    """Features of specs that the trainer does not support -> why."""
    reasons = {}
    for feature in spec_features():
        kind, _, name = feature.partition(":")
        if (kind == "method" and name not in TRAINED) or (kind == "adapter" and name and name not in ADAPTERS):
            reasons[feature] = "the trainer does not have it yet"
    return reasons


def contradictions(spec: JobSpec, backend: str) -> list[Problem]:
    """Inconsistent values in the spec and in that back end's own settings."""
    adapter = spec.adapter.type if spec.adapter is not None else DEFAULT_ADAPTER
    found = [*adapter_problems(spec), *schedule_problems(spec, adapter), *_of_method(spec), *misused(spec, backend)]
    found += media_problems(spec)
    found += [*policy.misused(spec, backend), *distillation.misused(spec, backend), *embedding.misused(spec)]
    batch = spec.hyperparameters.batch_size or _HYPERPARAMETERS["batch_size"]
    return [*found, *_of_validation(spec), *_of_batches(spec), *distributed.group_problems(spec, batch)]


def _of_method(spec: JobSpec) -> Iterator[Problem]:
    method = METHODS[spec.method.name]
    if method.task in HEADS and spec.method.loss_on is not None:
        message = f"{spec.method.name} learns what each row predicts, not turns of a conversation"
        yield Problem(code="no_effect", field="method.loss_on", message=message, fix="remove it")
    if method.task in HEADS and spec.hyperparameters.packing:
        message = f"rows are not packed for {spec.method.name}: a step is `batch_size` rows"
        yield Problem(code="no_effect", field="hyperparameters.packing", message=message, fix="remove it")
    for name in ("temperature", "margin"):
        if (number := getattr(spec.method, name)) is not None and number < SMALLEST:
            fix = f"use at least {SMALLEST}"
            yield Problem(code="range", field=f"method.{name}", message=f"{number:g} is too small", fix=fix)
    problem = spec.method.label_problem
    for name in ("problem", "class_weights", "label_smoothing"):
        if getattr(spec.method, name) is None or (name == "label_smoothing" and method.task in SMOOTHED):
            continue
        if problem is None:
            message = f"{spec.method.name} does not learn labels of texts"
            yield Problem(code="no_effect", field=f"method.{name}", message=message, fix="remove it")
        elif name != "problem" and problem != "single_label":
            message = f"it applies to a single label, not to {problem}"
            yield Problem(code="no_effect", field=f"method.{name}", message=message, fix="remove it")
    if method.every_token and spec.method.loss_on not in (None, "all"):
        message = "continued pretraining trains on every token"
        yield Problem(code="no_effect", field="method.loss_on", message=message, fix="remove it, or use sft")


def _of_validation(spec: JobSpec) -> Iterator[Problem]:
    validation = spec.validation
    if spec.data.validation is None:
        for name in ("every", "early_stopping"):
            if getattr(validation, name) not in (None, "never"):
                message = "there are no validation rows"
                fix = "add `data.validation`: a file, or a share such as 0.1"
                yield Problem(code="no_validation", field=f"validation.{name}", message=message, fix=fix)
    elif validation.early_stopping is not None and validation.every == "never":
        message = "it looks at the validation rows, and `every: never` says not to measure it"
        yield Problem(code="contradiction", field="validation.early_stopping", message=message, fix="set `every`")


def _of_batches(spec: JobSpec) -> Iterator[Problem]:
    hyper = spec.hyperparameters
    parts, batch = hyper.gradient_accumulation_steps or 1, hyper.batch_size
    if batch is not None and parts > batch:
        message = f"a batch of {batch} cannot be split into {parts} parts"
        fix = f"use at most {batch}"
        yield Problem(code="range", field="hyperparameters.gradient_accumulation_steps", message=message, fix=fix)
    if hyper.max_steps is not None and (hyper.warmup_steps or 0) >= hyper.max_steps:
        steps = f"{hyper.warmup_steps} of {hyper.max_steps} steps"
        message = f"the learning rate never reaches its peak: the warmup takes {steps}"
        yield warning("warmup", "hyperparameters.warmup_steps", message, f"use fewer than {hyper.max_steps} steps")
    if hyper.max_length == 1:
        message = "a sequence of one token has no context to predict from"
        yield Problem(code="range", field="hyperparameters.max_length", message=message, fix="use a larger value")


def row_limit(spec: JobSpec, model: dict[str, Any]) -> RowLimit | None:
    """The row length at which the trainer truncates, if the model's tokenizer is available.

    Running text (cpt), words with tags and contexts are split, without loss.
    """
    method = METHODS[spec.method.name]
    cut = not method.every_token and method.task not in _NOT_CUT
    if not cut or model["source"] != "folder" or not Path(model["path"], "tokenizer.json").is_file():
        return None
    tokens = spec.hyperparameters.max_length or default_length(model)
    return RowLimit(tokens=tokens, tokenizer=model["path"], cut=True)
