"""Converts a spec to a plan: files by their hash, and the run folder whose worker trains. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune.cost import CostEstimate
from cloudtune.errors import Problem, SpecError
from cloudtune.plan import Plan, Step
from cloudtune.pricing import by_time
from cloudtune_providers.run_folders import planning
from cloudtune_providers.ssh.capabilities import NAME
from cloudtune_providers.ssh.options import Options, Overrides
from cloudtune_trainer.submit.distributed import gpu_problems, processes_of
from cloudtune_trainer.submit.plan import Choices

if TYPE_CHECKING:
    from cloudtune.plan import PlanRequest

INSTALL, AWAIT_INSTALL = "install_packages", "await_packages"
INSTALL_LIMIT_S = 3600.0


def to_plan(request: PlanRequest, options: Options) -> Plan:
    """The steps that create the job. Raises SpecError."""
    choices = Choices(NAME)
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    root, facts = str(options.folder), request.resolved.facts
    document = planning.trainer_spec(request, root, own, choices)
    warnings = planning.problems(request, document, choices)
    problems = _machine_problems(own, facts["gpus"], document["hyperparameters"]["precision"])
    if own.device != "cpu":
        problems += gpu_problems(request.spec, facts["gpus"], None if options.slots == "auto" else options.slots, NAME)
    if problems:
        raise SpecError(problems)
    for name in ("host", "slots", "grace"):
        source = "settings" if name in options.model_fields_set else f"default of {NAME}"
        choices.note(f"backends.{NAME}.{name}", getattr(options, name), source)
    choices.note(f"backends.{NAME}.python", facts["python"], "settings")
    job = planning.job_document(request, root, NAME) | _worker_settings(request, options, own)
    steps = [
        *planning.find_checkpoint(request),
        *_install_steps(facts, root),
        *planning.upload_steps(request, root),
        planning.create_step(request, root, document, job, start=True),
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


def _install_steps(facts: dict[str, Any], root: str) -> list[Step]:
    """Create the environment with the trainer's packages, unless the interpreter named has them."""
    packages = facts.get("packages")
    if packages is None:
        return []
    request = {"root": root, "python": facts["base_python"], "packages": packages}
    return [
        Step(
            id=INSTALL, kind="call", title="create a virtual environment, once", request=request, once="atomic"
        ),
        Step(
            id=AWAIT_INSTALL, kind="await", title="wait for its packages", request=request, limit_s=INSTALL_LIMIT_S
        ),
    ]  # fmt: skip


def _worker_settings(request: PlanRequest, options: Options, own: Overrides) -> dict[str, Any]:
    found: dict[str, Any] = {
        "python": request.resolved.facts["python"],
        "processes": processes_of(request.spec),
        "slots": None if options.slots == "auto" else options.slots,
        "grace_s": options.grace,
    }
    if request.run_seconds is not None:
        found["max_seconds"] = request.run_seconds
    return found


def _machine_problems(own: Overrides, gpus: int, precision: str) -> list[Problem]:
    found = []
    if own.device == "cuda" and not gpus:
        message = "no NVIDIA GPU was found on the machine"
        found.append(Problem(code="no_gpu", field=f"overrides.{NAME}.device", message=message, fix="set it to `auto`"))
    if precision == "fp16" and not gpus:
        message = "fp16 requires a GPU, and none was found on the machine"
        field = "hyperparameters.precision"
        found.append(Problem(code="range", field=field, message=message, fix="use fp32 or bf16"))
    return found


def estimate(request: PlanRequest, options: Options) -> CostEstimate:
    """The run time, as measured in earlier jobs, at the machine's price."""
    if options.usd_per_hour is None:
        basis = f"unknown: backends.{NAME}.usd_per_hour is not set"
        return CostEstimate(usd=None, basis=basis, unknown=("the price of an hour",))
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    hyper = planning.trainer_spec(request, str(options.folder), own, Choices(NAME))["hyperparameters"]
    return by_time(
        request, "the machine", options.usd_per_hour, f"backends.{NAME}.usd_per_hour; idle time is not counted",
        epochs=hyper["epochs"] if hyper["max_steps"] is None else None, limit_s=request.run_seconds,
    )  # fmt: skip
