"""Converts a spec to a plan: every effective value with its source, as the trainer's ``spec.json``. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cloudtune.cost import CostEstimate
from cloudtune.errors import Problem, SpecError
from cloudtune.methods import METHODS
from cloudtune.plan import Plan, Setting, Step, output_ref
from cloudtune.pricing import by_time
from cloudtune_local.options import Options, Overrides
from cloudtune_trainer.submit import distillation, memory, policy, preference
from cloudtune_trainer.submit.distributed import gpu_problems, processes_of
from cloudtune_trainer.submit.plan import FORMAT, Choices, model_problems, run_spec, warning
from cloudtune_trainer.worker.run import JOB_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import PlanRequest

NAME = "local"
CREATE = "create_run"
FIND_CHECKPOINT = "find_checkpoint"


def to_plan(request: PlanRequest, options: Options) -> Plan:
    """The steps that create the job, with the whole spec.json in the one that creates the run. Raises SpecError."""
    choices = Choices(NAME)
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    document = _spec_document(request, own, choices)
    job = _job_document(request, options, own, choices)
    warnings = _problems(request, document, own, job["slots"])
    splits = request.data.splits
    needed = memory.estimate(request.resolved.facts["model"], document, longest_chars=splits["train"].longest_chars)
    if needed is not None:
        each = ", for each process" if processes_of(request.spec) > 1 else ""
        choices.note("memory", memory.shown(needed), f"{needed.basis}{each}")
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
        # First, so that a job without a valid checkpoint is refused before anything is written.
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


def estimate(request: PlanRequest, options: Options) -> CostEstimate:
    """The run time, as measured in earlier jobs, at the price in the settings."""
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    on_gpu = own.device in ("cuda", "mps") or (own.device == "auto" and request.resolved.facts["gpus"] > 0)
    setting = "usd_per_gpu_hour" if on_gpu else "usd_per_cpu_hour"
    price = getattr(options, setting)
    if price is None:
        basis = f"unknown: backends.{NAME}.{setting} is not set"
        return CostEstimate(usd=None, basis=basis, unknown=("the price of an hour",))
    hyper = _spec_document(request, own, Choices(NAME))["hyperparameters"]
    count = processes_of(request.spec) if on_gpu else 1
    return by_time(
        request, f"{count} x {'GPU' if on_gpu else 'CPU'}", count * price,
        f"backends.{NAME}.{setting}; queue time is free",
        epochs=hyper["epochs"] if hyper["max_steps"] is None else None, limit_s=request.run_seconds,
    )  # fmt: skip


def _find_checkpoint(parent: str) -> Step:
    title = f"find the newest valid checkpoint of {parent}"
    return Step(id=FIND_CHECKPOINT, kind="call", title=title, request={"newest_checkpoint_of": parent})


def _spec_document(request: PlanRequest, own: Overrides, choices: Choices) -> dict[str, Any]:
    """The trainer's spec.json, with the future paths of the encoded rows."""
    trainer = _overrides(request, own, choices)
    data = {split: output_ref(f"encode_{split}", "path") for split in request.data.splits}
    start = output_ref(FIND_CHECKPOINT, "path") if request.parent else None
    facts = request.resolved.facts["model"]
    document = run_spec(request, choices, facts, data, start, trainer)
    return document | {"model": {**document["model"], "fingerprint": facts.get("weights")}}


def _overrides(request: PlanRequest, own: Overrides, choices: Choices) -> dict[str, Any]:
    """The overrides for the trainer; the revision belongs to the model."""
    derived = {"revision": request.resolved.facts["model"]["revision"]}
    for name in Overrides.model_fields:
        if name in (preference.KEY, policy.KEY, distillation.KEY):  # set by their terms
            continue
        value = derived.get(name) or getattr(own, name)
        if value is not None:
            value = value.model_dump() if isinstance(value, BaseModel) else value
            source = "override" if name in own.model_fields_set else f"default of {NAME}"
            choices.settings.append(Setting(field=f"overrides.{NAME}.{name}", value=value, source=source))
    found = {name: getattr(own, name) for name in ("device", "threads", "log_every", "trust_remote_code")}
    if own.group_by_length:
        found["group_by_length"] = True
    if own.learning_rate_range is not None:
        found["learning_rate_range"] = own.learning_rate_range.model_dump()
    return found


def _job_document(request: PlanRequest, options: Options, own: Overrides, choices: Choices) -> dict[str, Any]:
    """The content of job.json: the run's job, and its worker's settings."""
    facts = request.resolved.facts
    slots = None if options.slots == "auto" else options.slots
    for name, value in (("slots", options.slots), ("python", facts["python"]), ("grace", options.grace)):
        source = "settings" if name in options.model_fields_set else f"default of {NAME}"
        choices.settings.append(Setting(field=f"backends.{NAME}.{name}", value=value, source=source))
    passed: dict[str, Any] = {}
    if request.run_seconds is not None:
        passed = {"max_seconds": request.run_seconds}
        choices.note("max_seconds", request.run_seconds, "derived: limits.max_cost_usd")
    if own.max_restarts:
        passed |= {"max_restarts": own.max_restarts}
    if options.pass_env:
        passed |= {"pass_env": list(options.pass_env)}
        choices.settings.append(Setting(field=f"backends.{NAME}.pass_env", value=passed["pass_env"], source="settings"))
    return {
        "version": JOB_VERSION,
        "name": request.spec.name,
        "model": request.spec.model_for(NAME),
        "tags": request.spec.tags,
        "key": request.key,
        "attempt": request.attempt,
        "parent": str(request.parent) if request.parent else None,
        "python": facts["python"],
        "processes": processes_of(request.spec),
        "slots": slots,
        "grace_s": options.grace,
        **passed,
    }


def _problems(request: PlanRequest, document: dict[str, Any], own: Overrides, slots: int | None) -> list[Problem]:
    """Warnings about the spec for this model and machine. Raises SpecError for errors."""
    facts, precision = request.resolved.facts, document["hyperparameters"]["precision"]
    found = model_problems(request, document, facts["model"])
    if precision == "fp16" and not facts["gpus"]:
        message = "fp16 requires a GPU, and none was found on this machine"
        found.append(Problem(code="range", field="hyperparameters.precision", message=message, fix="use fp32 or bf16"))
    if own.learning_rate_range is not None:
        found += _range_problems(request)
    if own.device in ("auto", "cuda"):
        found += gpu_problems(request.spec, facts["gpus"], slots, NAME)
    if own.group_by_length and document["hyperparameters"]["packing"]:
        message = "packed rows are not padded, so their lengths do not matter"
        field, fix = f"overrides.{NAME}.group_by_length", "set hyperparameters.packing: false"
        found.append(Problem(code="needless", field=field, message=message, fix=fix))
    if own.device == "cuda" and not facts["gpus"]:
        message = "no NVIDIA GPU was found on this machine"
        found.append(warning("no_gpu", f"overrides.{NAME}.device", message, "set it to `auto`, or install the driver"))
    if errors := [problem for problem in found if problem.severity == "error"]:
        raise SpecError(errors)
    return found


def _range_problems(request: PlanRequest) -> Iterator[Problem]:
    """Why the spec has no learning-rate range test."""
    method, layers = request.spec.method.name, request.spec.layers
    if METHODS[method].task == "policy_optimization":
        message = f"the loss of {method} does not show whether the model learns"
        yield Problem(code="no_range_test", field="method", message=message, fix="compare the rewards of short jobs")
    if layers is not None and layers.unfreeze is not None:
        message, fix = "a range test has no stages of gradual unfreezing", "remove it for the test: set it to null"
        yield Problem(code="no_range_test", field="layers.unfreeze", message=message, fix=fix)
