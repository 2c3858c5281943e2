"""The steps that several back ends share: rows, code and models by their hash, and the run's folder. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cloudtune.errors import SpecError
from cloudtune.methods import METHODS
from cloudtune.plan import Setting, Step, output_ref
from cloudtune_trainer.submit import distillation, memory, policy, preference
from cloudtune_trainer.submit.plan import FORMAT, model_problems, run_spec
from cloudtune_trainer.worker.access import FILES
from cloudtune_trainer.worker.run import JOB_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.errors import Problem
    from cloudtune.plan import PlanRequest
    from cloudtune_providers.run_folders.options import TrainerOverrides
    from cloudtune_trainer.submit.plan import Choices

FIND_CHECKPOINT = "find_checkpoint"
UPLOAD_CODE = "upload_code"
UPLOAD_MODEL = "upload_model"
CREATE = "create_run"
_BY_THEIR_TERMS = (preference.KEY, policy.KEY, distillation.KEY)
_FOR_TRAINER = ("device", "threads", "log_every", "trust_remote_code")


def not_uploaded(advice: str) -> dict[str, str]:
    """Features whose files stay on this machine, with the reason: only the base model travels."""
    reason = f"only the base model is uploaded: {advice}"
    return policy.unsupported(reason) | dict.fromkeys(("adapter.path", "method:distill"), reason) | no_media(advice)


def no_media(advice: str) -> dict[str, str]:
    """The methods whose rows name files, with the reason: only the rows travel."""
    reason = f"images and recordings are not uploaded: {advice}"
    return {f"method:{name}": reason for name, method in METHODS.items() if method.media is not None}


def code_folder(root: str, sha256: str) -> str:
    """The folder of the unpacked trainer."""
    return f"{root}/{FILES}/code/{sha256}.d"


def model_files(path: str) -> list[dict[str, Any]]:
    """The files of a local model, with their sizes. Reads the folder."""
    place = Path(path)
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    return [
        {"name": file.name if file == place else str(file.relative_to(place)), "bytes": file.stat().st_size}
        for file in files
    ]


def upload_steps(request: PlanRequest, root: str) -> list[Step]:
    """Write and upload the rows, the trainer's code and, if it has to travel, the model."""
    steps = [
        Step(
            id=f"encode_{split}",
            kind="encode",
            title=f"write the {info.rows} {split} rows in the trainer's format",
            request={"split": split, "format": FORMAT, "sha256": info.sha256},
        )
        for split, info in request.data.splits.items()
    ]
    for split in request.data.splits:
        rows = {name: output_ref(f"encode_{split}", name) for name in ("path", "sha256", "bytes")}
        steps.append(_upload(f"upload_{split}", f"upload the {split} rows", {"root": root, "folder": "rows", **rows}))
    code = request.resolved.facts["code"]
    steps.append(_upload(UPLOAD_CODE, "upload the trainer", {"root": root, "folder": "code", "sha256": code}))
    if (files := request.resolved.facts.get("model_files")) is not None:
        model = request.resolved.facts["model"]
        title = f"upload the base model, {len(files)} files"
        wanted = {"root": root, "path": model["path"], "folder": _model_folder(model), "files": files}
        steps.append(_upload(UPLOAD_MODEL, title, wanted))
    return steps


def _upload(name: str, title: str, request: dict[str, Any]) -> Step:
    return Step(id=name, kind="upload", title=title, request=request, once="atomic")


def _model_folder(model: Mapping[str, Any]) -> str:
    return f"models/{model['fingerprint'][:64]}"


def find_checkpoint(request: PlanRequest) -> list[Step]:
    """The step that finds the checkpoint from which the job continues, if it continues another one."""
    if request.parent is None:
        return []
    title = f"find the newest valid checkpoint of {request.parent}"
    wanted = {"newest_checkpoint_of": str(request.parent)}
    return [Step(id=FIND_CHECKPOINT, kind="call", title=title, request=wanted)]


def create_step(
    request: PlanRequest, root: str, spec: Mapping[str, Any], job: Mapping[str, Any], *, start: bool
) -> Step:
    """The step that creates the run's folder; with ``start``, it also starts the worker, and makes the job."""
    return Step(
        id=CREATE,
        kind="call",
        title=f"create the run {request.slug}" + (" and start its worker" if start else ""),
        request={"root": root, "run": request.slug, "spec": spec, "job": job, "start": start},
        once="atomic",
        token=request.token,
        makes_job=start,
    )


def trainer_spec(request: PlanRequest, root: str, own: TrainerOverrides, choices: Choices) -> dict[str, Any]:
    """The trainer's ``spec.json``, with paths on the machine that trains. Raises SpecError."""
    facts = request.resolved.facts
    model = facts["model"]
    for name in type(own).model_fields:
        value = model["revision"] if name == "revision" else getattr(own, name)
        if name in _BY_THEIR_TERMS or value is None:
            continue
        value = value.model_dump() if isinstance(value, BaseModel) else value
        source = "override" if name in own.model_fields_set else f"default of {choices.backend}"
        choices.settings.append(Setting(field=f"overrides.{choices.backend}.{name}", value=value, source=source))
    data = {split: output_ref(f"upload_{split}", "path") for split in request.data.splits}
    start = output_ref(FIND_CHECKPOINT, "path") if request.parent else None
    document = run_spec(request, choices, model, data, start, {name: getattr(own, name) for name in _FOR_TRAINER})
    if (files := facts.get("model_files")) is not None:
        place = f"{root}/{FILES}/{_model_folder(model)}"
        alone = model["source"] != "folder"
        document["model"]["path"] = f"{place}/{files[0]['name']}" if alone else place
    return document | {"model": {**document["model"], "fingerprint": model.get("weights")}}


def job_document(request: PlanRequest, root: str, backend: str) -> dict[str, Any]:
    """The content of ``job.json`` that every such back end has."""
    return {
        "version": JOB_VERSION,
        "name": request.spec.name,
        "model": request.spec.model_for(backend),
        "base": request.resolved.facts["model"]["path"],
        "tags": request.spec.tags,
        "key": request.key,
        "attempt": request.attempt,
        "token": request.token,
        "parent": str(request.parent) if request.parent else None,
        "code": code_folder(root, request.resolved.facts["code"]),
    }


def problems(request: PlanRequest, document: Mapping[str, Any], choices: Choices) -> list[Problem]:
    """Warnings about the spec for this model, and a note of the memory that it needs. Raises SpecError for errors."""
    facts = request.resolved.facts["model"]
    found = list(model_problems(request, dict(document), facts))
    if errors := [problem for problem in found if problem.severity == "error"]:
        raise SpecError(errors)
    needed = memory.estimate(facts, dict(document), longest_chars=request.data.splits["train"].longest_chars)
    if needed is not None:
        choices.note("memory", memory.shown(needed), needed.basis)
    return found
