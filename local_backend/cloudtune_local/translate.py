"""From a spec to a plan: every value that will be in force, with who chose it, as the trainer's ``spec.json``. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.backend import Plan, RowLimit, Setting, Step, place
from cloudtune.errors import Problem, SpecError
from cloudtune_local.options import Options, Overrides
from cloudtune_local.rundir import JOB_VERSION
from cloudtune_local.training.folder import SPEC_VERSION

if TYPE_CHECKING:
    from cloudtune.backend import PlanRequest
    from cloudtune.spec import JobSpec

NAME = "local"
FORMAT = "cloudtune"
CREATE = "create_run"
FIND_CHECKPOINT = "find_checkpoint"
DEFAULT_MAX_LENGTH = 1024
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
    "max_grad_norm": 1.0,
    "precision": "auto",
    "gradient_checkpointing": False,
}
"""Those whose default depends on nothing; None means without."""
_NOT_READ = ("images", "parts")
_NOT_SHOWN = ("thoughts", "tools")
"""Features of rows (see ``data.losses``) that the trainer does not take."""
_LORA: dict[str, Any] = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all-linear"}


class _Choices:
    """Picks each value from the first that names it, and remembers who it was."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []

    def pick(self, field: str, given: Any, default: Any, why: str = f"default of {NAME}") -> Any:
        """The spec's value, or else the default."""
        value = default if given is None else given
        if value is not None:
            value = list(value) if isinstance(value, tuple) else value
            self.settings.append(Setting(field=field, value=value, source=why if given is None else "spec"))
        return value


def to_plan(request: PlanRequest, options: Options) -> Plan:
    """The steps that make the job, with the whole spec.json in the one that creates the run. Raises SpecError."""
    choices = _Choices()
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    document = _spec_document(request, own, choices)
    job = _job_document(request, options, own, choices)
    warnings = _judge(request, document, own)
    splits = request.data.splits
    steps = [
        Step(
            id=f"encode_{split}",
            kind="encode",
            title=f"write the {info.rows} {split} rows in the trainer's format",
            request={"split": split, "format": FORMAT, "sha256": info.sha256},
        )
        for split, info in splits.items()
    ]
    if request.parent is not None:
        # First of all: a job without a good checkpoint is refused before anything is written.
        steps.insert(0, _find_checkpoint(str(request.parent)))
    scope = request.resolved.scope
    steps.append(
        Step(
            id=CREATE,
            kind="call",
            title=f"create the run {request.slug} and start its worker",
            request={"root": scope, "run": request.slug, "spec": document, "job": job},
            once="atomic",
            token=request.token,
            makes_job=True,
        )
    )
    return Plan(
        name=request.spec.name,
        backend=NAME,
        scope=scope,
        key=request.key,
        attempt=request.attempt,
        token=request.token,
        spec=request.spec.model_dump(mode="json", exclude_none=True),
        steps=tuple(steps),
        data=request.data,
        resolved=request.resolved,
        settings=tuple(choices.settings),
        warnings=tuple(warnings),
        parent=str(request.parent) if request.parent else None,
    )


def _find_checkpoint(parent: str) -> Step:
    title = f"find the newest good checkpoint of {parent}"
    return Step(id=FIND_CHECKPOINT, kind="call", title=title, request={"newest_checkpoint_of": parent})


def _spec_document(request: PlanRequest, own: Overrides, choices: _Choices) -> dict[str, Any]:
    """The trainer's spec.json, with places where the encoded rows will be."""
    spec, splits = request.spec, request.data.splits
    adapter = _adapter(request, choices)
    trainer = _overrides(request, own, choices)
    model = request.resolved.facts["model"]
    loss_on = "all" if spec.method.name == "cpt" else "assistant"
    return {
        "version": SPEC_VERSION,
        "name": spec.name,
        "model": {"source": model["source"], "path": model["path"], "revision": model["revision"]},
        "method": spec.method.name,
        "loss_on": choices.pick("method.loss_on", spec.method.loss_on, loss_on),
        "adapter": adapter,
        "hyperparameters": _hyperparameters(request, choices, adapter["type"]),
        "evaluation": _evaluation(request, choices),
        "checkpoints": {
            "every": choices.pick("checkpoints.every", spec.checkpoints.every, "epoch"),
            "keep": choices.pick("checkpoints.keep", spec.checkpoints.keep, 0),
        },
        "limits": {"max_time": choices.pick("limits.max_time", spec.limits.max_time, None)},
        "seed": choices.pick("seed", spec.seed, 0),
        "data": {
            name: place(f"encode_{name}", "path") if name in splits else None
            for name in ("train", "validation", "test")
        },
        "resume_from": place(FIND_CHECKPOINT, "path") if request.parent else None,
        **trainer,
    }


def _overrides(request: PlanRequest, own: Overrides, choices: _Choices) -> dict[str, Any]:
    """Those that the trainer applies; the others are the worker's (processes) and the model's (revision)."""
    derived = {"revision": request.resolved.facts["model"]["revision"]}
    for name in Overrides.model_fields:
        value = derived.get(name) or getattr(own, name)
        if value is not None:
            source = "override" if name in own.model_fields_set else f"default of {NAME}"
            choices.settings.append(Setting(field=f"overrides.{NAME}.{name}", value=value, source=source))
    return {name: getattr(own, name) for name in ("device", "threads", "log_every", "trust_remote_code")}


def _adapter(request: PlanRequest, choices: _Choices) -> dict[str, Any]:
    given = request.spec.adapter
    kind = choices.pick("adapter.type", given.type if given else None, "lora")
    if kind == "full":
        return {"type": kind}
    picked = {
        name: choices.pick(f"adapter.{name}", getattr(given, name, None), default) for name, default in _LORA.items()
    }
    return {"type": kind, **picked}


def _hyperparameters(request: PlanRequest, choices: _Choices, adapter: str) -> dict[str, Any]:
    given = request.spec.hyperparameters
    defaults = dict(_HYPERPARAMETERS)
    if given.warmup_steps is not None:
        defaults["warmup_ratio"] = 0.0

    def pick(name: str, default: Any, why: str = f"default of {NAME}") -> Any:
        return choices.pick(f"hyperparameters.{name}", getattr(given, name), default, why)

    values = {name: pick(name, default) for name, default in defaults.items()}
    full = adapter == "full"
    values["learning_rate"] = pick("learning_rate", 2e-5 if full else 2e-4, f"default of {NAME} for {adapter} training")
    length = _default_length(request.resolved.facts["model"])
    values["max_length"] = pick("max_length", length, f"derived: at most {DEFAULT_MAX_LENGTH}, and the model's context")
    # Packing turns `batch_size` from rows into full sequences: few, large steps. That is right for running text, but a
    # few hundred short dialogues would be over in two steps and nothing learnt; there it must be asked for.
    running = request.spec.method.name == "cpt"
    why = "records of running text are joined" if running else "a step is `batch_size` rows"
    values["packing"] = pick("packing", running, f"default of {NAME} for {request.spec.method.name}: {why}")
    return values


def _default_length(model: dict[str, Any]) -> int:
    return min(model.get("context_length") or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def row_limit(spec: JobSpec, model: dict[str, Any]) -> RowLimit | None:
    """How long a row may be before the trainer cuts it, where the model's tokenizer lies at hand.

    Running text (cpt) is cut into sequences anyway, and nothing of it is lost.
    """
    if spec.method.name == "cpt" or model["source"] != "folder" or not Path(model["path"], "tokenizer.json").is_file():
        return None
    tokens = spec.hyperparameters.max_length or _default_length(model)
    return RowLimit(tokens=tokens, tokenizer=model["path"], cut=True)


def _evaluation(request: PlanRequest, choices: _Choices) -> dict[str, Any]:
    given = request.spec.evaluation
    held_out = "validation" in request.data.splits
    why = f"default of {NAME}" if held_out else "derived: there are no validation rows"
    stop = given.early_stopping.model_dump() if given.early_stopping else None
    return {
        "every": choices.pick("evaluation.every", given.every, "epoch" if held_out else "never", why),
        "early_stopping": choices.pick("evaluation.early_stopping", stop, None),
    }


def _job_document(request: PlanRequest, options: Options, own: Overrides, choices: _Choices) -> dict[str, Any]:
    """What job.json holds: whose run this is, and what its worker needs to know."""
    facts = request.resolved.facts
    slots = None if options.slots == "auto" else options.slots
    for name, value in (("slots", options.slots), ("python", facts["python"]), ("grace", options.grace)):
        source = "settings" if name in options.model_fields_set else f"default of {NAME}"
        choices.settings.append(Setting(field=f"backends.{NAME}.{name}", value=value, source=source))
    return {
        "version": JOB_VERSION,
        "name": request.spec.name,
        "model": request.spec.model_for(NAME),
        "tags": request.spec.tags,
        "key": request.key,
        "attempt": request.attempt,
        "parent": str(request.parent) if request.parent else None,
        "python": facts["python"],
        "processes": own.processes,
        "slots": slots,
        "grace_s": options.grace,
    }


def _judge(request: PlanRequest, document: dict[str, Any], own: Overrides) -> list[Problem]:
    """Warnings on how the spec fits the model and the machine. Raises SpecError where it does not."""
    facts, hyper = request.resolved.facts, document["hyperparameters"]
    model, length = facts["model"], hyper["max_length"]
    errors, warnings = [], []
    context = model.get("context_length")
    if context and length > context:
        message = f"the model's context is {context} tokens, and {length} are asked for"
        fix = f"use at most {context}"
        errors.append(Problem(code="too_long", field="hyperparameters.max_length", message=message, fix=fix))
    if hyper["precision"] == "fp16" and not facts["gpus"]:
        message = "half precision needs a GPU, and this machine shows none"
        errors.append(Problem(code="range", field="hyperparameters.precision", message=message, fix="use fp32 or bf16"))
    gpus = facts["gpus"]
    if own.processes > 1 and own.device in ("auto", "cuda") and 0 < gpus < own.processes:
        message = f"{own.processes} processes need as many GPUs, and this machine shows {gpus}"
        field = f"overrides.{NAME}.processes"
        errors.append(Problem(code="range", field=field, message=message, fix=f"use at most {gpus}"))
    if own.device == "cuda" and not gpus:
        message = "this machine shows no NVIDIA GPU"
        warnings.append(
            _warning("no_gpu", f"overrides.{NAME}.device", message, "leave it `auto`, or install the driver")
        )
    chat = any(info.kind == "chat" for info in request.data.splits.values())
    if chat and model.get("chat_template") is False:
        message = "its tokenizer has no chat template; dialogues are written as `User: ...` and `Assistant: ...` lines"
        warnings.append(_warning("no_template", "model", message, "an instruct model has a template of its own"))
    if request.resolved.row_limit is None:  # else the rows themselves have been counted
        warnings += [_long_rows(name, info.longest_chars, length) for name, info in request.data.splits.items()
                     if info.kind == "chat" and info.longest_chars > length * _CHARS_PER_TOKEN]  # fmt: skip
    unread = {problem.field: problem for problem in request.data.problems if problem.code == "feature"}
    errors += [_unreadable(unread[name]) for name in _NOT_READ if name in unread]
    warnings += [_unseen(unread[name]) for name in _NOT_SHOWN if name in unread]
    if errors:
        raise SpecError(errors)
    return warnings


def _unreadable(feature: Problem) -> Problem:
    message = f"{feature.message}; the trainer reads text only"
    return Problem(code="not_text", field="data", message=message, fix="leave those rows out, or write them as text")


def _unseen(feature: Problem) -> Problem:
    message = f"{feature.message}; the model is not shown them"
    return _warning("not_shown", "data", message, "write into the turns' text what is to be learnt")


def _long_rows(split: str, chars: int, length: int) -> Problem:
    message = (
        f"the longest {split} row has {chars} characters, perhaps more than {length} tokens; "
        f"a longer row is cut there, and the job's events name it"
    )
    return _warning("may_be_cut", "hyperparameters.max_length", message, "raise it if the model's context allows")


def _warning(code: str, field: str, message: str, fix: str) -> Problem:
    return Problem(code=code, field=field, message=message, severity="warning", fix=fix)
