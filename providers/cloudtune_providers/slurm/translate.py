"""Converts a spec to a plan: the run folder, and the batch job that runs it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.cost import CostEstimate
from cloudtune.errors import Problem, SpecError
from cloudtune.plan import Plan, Setting, Step
from cloudtune.pricing import by_time
from cloudtune_providers.run_folders import planning
from cloudtune_providers.slurm.capabilities import NAME
from cloudtune_providers.slurm.options import Options, Overrides
from cloudtune_providers.slurm.script import batch_script, sbatch_arguments
from cloudtune_trainer.submit.distributed import processes_of
from cloudtune_trainer.submit.plan import Choices

if TYPE_CHECKING:
    from cloudtune.plan import PlanRequest

SUBMIT = "submit_batch"
SETTLE_S = 30.0
"""How long sbatch may take to reach the controller after its connection was lost."""
_SIGNAL_SHARE = 0.2
_SHOWN = ("partition", "account", "qos", "container", "modules")


def to_plan(request: PlanRequest, options: Options) -> Plan:
    """The steps that create and submit the job. Raises SpecError."""
    choices = Choices(NAME)
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    facts = request.resolved.facts
    root = str(options.folder)
    document = planning.trainer_spec(request, root, own, choices)
    warnings = planning.problems(request, document, choices)
    gpus, count = gpu_count(own), processes_of(request.spec)
    if own.device != "cpu" and 0 < gpus < count:
        message, fix = f"{count} processes require as many GPUs, and the job asks for {gpus}", f"use at most {gpus}"
        raise SpecError([Problem(code="range", field="distributed.processes", message=message, fix=fix)])
    for name in _SHOWN:
        if value := getattr(options, name):
            choices.settings.append(Setting(field=f"backends.{NAME}.{name}", value=value, source="settings"))
    choices.settings.append(
        Setting(field=f"backends.{NAME}.python", value=facts["python"], source=facts["python_source"])
    )
    run, signal_s = f"{root}/{request.slug}", _signal(own, facts["time_limit_s"])
    job = planning.job_document(request, root, NAME) | _limits(request, own, facts["time_limit_s"], signal_s)
    arguments = sbatch_arguments(options, own, name=request.slug, token=request.token, run=run, signal_s=signal_s)
    code = planning.code_folder(root, facts["code"])
    script = batch_script(options, run=run, root=root, code=code, python=facts["python"])
    submit = Step(
        id=SUBMIT,
        kind="call",
        title=f"submit the batch job {request.slug}",
        request={"root": root, "run": request.slug, "arguments": arguments, "script": script},
        once="reconciled",
        token=request.token,
        settle_s=SETTLE_S,
        makes_job=True,
    )
    steps = [
        *planning.find_checkpoint(request),
        *planning.upload_steps(request, root),
        planning.create_step(request, root, document, job, start=False),
        submit,
    ]
    return Plan(
        name=request.spec.name,
        backend=NAME,
        scope=request.resolved.scope,
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


def _signal(own: Overrides, limit: float | None) -> int:
    """How many seconds before the time limit Slurm asks the job to stop: at most a fifth of the limit."""
    return int(own.signal_before if limit is None else min(own.signal_before, _SIGNAL_SHARE * limit))


def _limits(request: PlanRequest, own: Overrides, limit: float | None, signal_s: int) -> dict[str, Any]:
    found: dict[str, Any] = {"time_limit_s": limit, "signal_s": signal_s, "max_restarts": own.max_restarts}
    if request.run_seconds is not None:
        found["max_seconds"] = request.run_seconds
    return found


def gpu_count(own: Overrides) -> int:
    """The number of GPUs that the job asks for."""
    if own.gpus is not None:
        return own.gpus
    parts = [part.split(":") for part in (own.gres or "").split(",") if part.split(":")[0] == "gpu"]
    return sum(int(part[-1]) if part[-1].isdecimal() else 1 for part in parts)


def estimate(request: PlanRequest, options: Options) -> CostEstimate:
    """The run time, as measured in earlier jobs, at the price in the settings."""
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    count = gpu_count(own)
    setting = "usd_per_gpu_hour" if count else "usd_per_cpu_hour"
    price = getattr(options, setting)
    if price is None:
        basis = f"unknown: backends.{NAME}.{setting} is not set"
        return CostEstimate(usd=None, basis=basis, unknown=("the price of an hour",))
    document = planning.trainer_spec(request, str(options.folder), own, Choices(NAME))
    hyper = document["hyperparameters"]
    return by_time(
        request, f"{count or 1} x {'GPU' if count else 'CPU'}", (count or 1) * price,
        f"backends.{NAME}.{setting}; queue time is free",
        epochs=hyper["epochs"] if hyper["max_steps"] is None else None, limit_s=request.run_seconds,
    )  # fmt: skip
