"""Converts a spec to a plan: the uploads, the run's folder and Ray's own request. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cloudtune.backend import VERBS, Capabilities
from cloudtune.errors import Problem
from cloudtune.plan import Plan, Setting, Step
from cloudtune.spec import spec_features
from cloudtune_providers.ray.options import Overrides
from cloudtune_providers.run_folders import planning
from cloudtune_trainer.submit.distributed import processes_of
from cloudtune_trainer.submit.plan import COMMON_OVERRIDES, Choices, contradictions, unsupported_features

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec
    from cloudtune_providers.ray.options import Options

NAME = "ray"
SUBMIT = "submit_job"
TOKEN = "cloudtune_token"  # noqa: S105 - the key of a job's metadata
_PAUSED = (
    "a paused job would keep its part of the cluster: cancel; `cloudtune resume` continues from the last checkpoint"
)
_OTHER = {
    "verb:deploy": "the model runs in this process; use `cloudtune generate`",
    "verb:pause": _PAUSED,
    "verb:resume": "jobs cannot be paused; an ended job continues as a new one",
}


def capabilities() -> Capabilities:
    """What it can do."""
    reasons = _OTHER | planning.not_uploaded("train on the local back end") | unsupported_features()
    return Capabilities(
        supports=frozenset({*spec_features(), *VERBS} - set(reasons)),
        reasons=reasons,
        translated={
            "data.validation": "its metric (loss, F1, accuracy or mean reward) chooses the checkpoint to keep",
            "data.test": "evaluated once, at the end",
            "distributed.processes": "an actor each, in one placement group",
            "distributed.nodes": "the placement group's strategy: STRICT_SPREAD over that many nodes",
            "limits.max_time": "training stops with a checkpoint and the best model so far; queue time is free",
            "tags": "kept in job.json",
        },
        common_overrides={name: name for name in (*COMMON_OVERRIDES, "max_restarts")},
        poll_s=1.0,
    )


def check(spec: JobSpec, options: Options) -> Iterator[Problem]:
    """The problems of the settings and of the spec's values."""
    for name, what in (("address", "the URL of the cluster's dashboard"), ("shared_folder", "a folder of all nodes")):
        if getattr(options, name) is None:
            message = f"{what} is required for jobs on Ray"
            yield Problem(code="setting", field=f"backends.{NAME}.{name}", message=message, fix="set it")
    yield from contradictions(spec, NAME)


def to_plan(request: PlanRequest, options: Options) -> Plan:
    """The steps. Raises SpecError."""
    root, choices = request.resolved.scope, Choices(NAME)
    own = Overrides.model_validate(request.spec.overrides.get(NAME, {}))
    document = planning.trainer_spec(request, root, own, choices)
    warnings = planning.problems(request, document, choices)
    job = planning.job_document(request, root, NAME) | {
        "processes": processes_of(request.spec),
        "nodes": request.spec.distributed.nodes if request.spec.distributed is not None else None,
        "resources": {name: _resource(name, options, own, choices) for name in ("cpus", "gpus")},
        "max_restarts": own.max_restarts,
        "python": options.python,
    }
    for name in ("python", "install"):
        source = "settings" if name in options.model_fields_set else f"default of {NAME}"
        choices.settings.append(Setting(field=f"backends.{NAME}.{name}", value=getattr(options, name), source=source))
    steps = [
        *planning.find_checkpoint(request),
        *planning.upload_steps(request, root),
        planning.create_step(request, root, document, job, start=False),
        _submit_step(request, f"{root}/{request.slug}", job["code"], options),
    ]
    return Plan(
        name=request.spec.name,
        backend=NAME,
        scope=root,
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


def _resource(name: str, options: Options, own: Overrides, choices: Choices) -> float:
    """What Ray reserves for each process."""
    given: float | None = getattr(own, name)
    value: float = getattr(options, name) if given is None else given
    if given is None:
        source = "settings" if name in options.model_fields_set else f"default of {NAME}"
        choices.note(f"backends.{NAME}.{name}", value, source)
    return value


def _submit_step(request: PlanRequest, folder: str, code: str, options: Options) -> Step:
    """Ray's own request. The cluster takes a submission id once, which makes the step atomic."""
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": code, "PYTHONUNBUFFERED": "1"}}
    if options.install:
        environment["pip"] = request.resolved.facts["packages"]
    return Step(
        id=SUBMIT,
        kind="call",
        title=f"submit the Ray job {request.slug}",
        request={
            "job": request.slug,
            "arguments": {
                "entrypoint": shlex.join([options.python, "-P", "-m", "cloudtune_trainer.ray", folder]),
                "runtime_env": environment,
                "metadata": {"job_name": request.spec.name, TOKEN: request.token},
            },
        },
        once="atomic",
        token=request.token,
        makes_job=True,
    )
