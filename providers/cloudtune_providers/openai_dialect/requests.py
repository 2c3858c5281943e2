"""The steps of a job: encode and upload each split, await it, create the job, look for duplicates.

The service has no idempotency, so every step that sends is `reconciled`: it looks for the result before it sends. A
file is identified by its name (which contains the hash of its rows), size and purpose, a job by ``Traits.marks``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.plan import Plan, Setting, Step, output_ref
from cloudtune_providers.openai_dialect.responses import NAME_KEY, TOKEN_KEY

if TYPE_CHECKING:
    from cloudtune.errors import Problem
    from cloudtune.plan import PlanRequest
    from cloudtune.spec import JobSpec

METHODS = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}
"""The kind of records for each method."""
OUR_KEYS = (TOKEN_KEY, NAME_KEY)
SLOWEST_BYTES_PER_S = 500_000.0
PART_BYTES = 32 * 1024 * 1024
PROCESSING_LIMIT_S = 1800.0
LISTING_LIMIT_S = 900.0
_TUNING = ("learning_rate_multiplier", "reasoning_effort", "compute_multiplier", "eval_interval", "eval_samples")


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a back end for its steps."""

    backend: str
    formats: Mapping[str, str]
    """Method -> format of the encoded rows."""
    timeout_s: float
    list_lag_s: float
    """How long a new file or job can be missing from a list."""
    parts_from_bytes: float
    """Files of this size and larger use the Uploads API."""
    suffix: str | None
    """Part of the tuned model's name."""
    marks: Mapping[str, Any]
    """Fields of the request that identify the created job."""
    extra: Mapping[str, Any] = {}
    """Further fields of the create request."""
    file_label: str = ""
    """Part of the files' names, if a job is named by its file."""
    own_files: bool = False
    """Whether the files must be this submission's own. Otherwise submissions share a file with equal rows."""
    fenced: bool = False
    """Whether each send of the create request has its own training file (see ``fencing``). Requires own files."""


def steps_of(request: PlanRequest, traits: Traits) -> tuple[Step, ...]:
    """All steps of the job."""
    steps: list[Step] = []
    for split in ("train", "validation"):
        if split in request.data.splits:
            steps += _file_steps(request, split, traits)
    return (*steps, *_job_steps(request, traits))


def plan_of(
    request: PlanRequest, traits: Traits, settings: tuple[Setting, ...], warnings: tuple[Problem, ...]
) -> Plan:  # fmt: skip
    """The whole plan."""
    return Plan(
        name=request.spec.name, backend=traits.backend, scope=request.resolved.scope, key=request.key,
        attempt=request.attempt, token=request.token, spec=request.spec.model_dump(mode="json", exclude_none=True),
        steps=steps_of(request, traits), data=request.data, resolved=request.resolved, settings=settings,
        warnings=warnings,
    )  # fmt: skip


def _file_steps(request: PlanRequest, split: str, traits: Traits) -> list[Step]:
    info = request.data.splits[split]
    form = traits.formats[request.spec.method.name]
    name = file_name(info.sha256, form, traits.file_label, request.token)
    same = name if traits.own_files else name.partition(request.token[:MARK])[0]
    timeout_s = _upload_s(info.bytes, traits)
    body: dict[str, Any] = {"filename": name, "purpose": "fine-tune"}
    upload: dict[str, Any] = {"call": "files.create", "body": body}
    if info.bytes >= traits.parts_from_bytes:
        body |= {"bytes": output_ref(f"encode_{split}", "bytes"), "mime_type": "application/jsonl"}
        upload = {"call": "uploads", "body": body, "part_bytes": PART_BYTES}
    upload |= {
        "path": output_ref(f"encode_{split}", "path"),
        "bytes": output_ref(f"encode_{split}", "bytes"),
        "same": same,
    }
    return [
        Step(
            id=f"encode_{split}", kind="encode", title=f"write the {split} rows as {form}",
            request={"split": split, "format": form, "sha256": info.sha256},
        ),
        Step(
            id=f"upload_{split}", kind="upload", title=f"upload the {split} rows", once="reconciled", token=name,
            request=upload | {"timeout_s": timeout_s}, settle_s=timeout_s + traits.list_lag_s,
        ),
        Step(
            id=f"await_{split}", kind="await", title=f"wait until the {split} file is processed",
            request={"call": "files.retrieve", "file": output_ref(f"upload_{split}", "file")},
            limit_s=PROCESSING_LIMIT_S,
        ),
    ]  # fmt: skip


def _upload_s(size: int, traits: Traits) -> float:
    """The time limit of an upload."""
    return traits.timeout_s + size / SLOWEST_BYTES_PER_S


_FILE = re.compile(r"cloudtune-(?:(.+)-)?[0-9a-f]{40}\.[a-z-]+\.[0-9a-f]+\.jsonl")
MARK = 12
"""Digits of the token in a file's name."""


def file_name(sha256: str, form: str, label: str, token: str) -> str:
    """Return a file's name. It starts with the identity of the rows and format, and ends with the submission's mark.

    This shows which of two equal files came from a request that was delivered twice.
    """
    rows = f"{sha256[:40]}.{form}"
    return f"{'-'.join(part for part in ('cloudtune', label, rows) if part)}.{token[:MARK]}.jsonl"


def label_of(filename: str) -> str:
    """Return the label in a file's name, if cloudtune created the file and it has one."""
    found = _FILE.fullmatch(filename)
    return (found.group(1) or "") if found else ""


def _job_steps(request: PlanRequest, traits: Traits) -> list[Step]:
    splits = [split for split in ("train", "validation") if split in request.data.splits]
    form = traits.formats[request.spec.method.name]
    uploads = [
        {"keep": output_ref(f"await_{split}", "file"), "bytes": output_ref(f"encode_{split}", "bytes"),
         "filename": file_name(request.data.splits[split].sha256, form, traits.file_label, request.token)}
        for split in splits
    ]  # fmt: skip
    marks: dict[str, Any] = {"call": "fine_tuning.jobs.list", "marks": dict(traits.marks), "uploads": uploads}
    create = {"call": "fine_tuning.jobs.create", "body": body_of(request, traits), "marks": dict(traits.marks)}
    if traits.fenced:
        marks |= {"files": output_ref("create", "files"), "more_uploads": output_ref("create", "uploads")}
        create["fence"] = {
            "filename": uploads[0]["filename"],
            "path": output_ref("encode_train", "path"),
            "bytes": output_ref("encode_train", "bytes"),
            "timeout_s": _upload_s(request.data.splits["train"].bytes, traits),
        }
    return [
        Step(
            id="create", kind="call", title="create the fine-tuning job", once="reconciled", token=request.token,
            request=create,
            settle_s=traits.timeout_s + traits.list_lag_s,
        ),
        # A request that a proxy delivers twice creates two jobs or files without an error.
        Step(
            id="confirm", kind="await", title="wait until the job is listed, and look for duplicates",
            request=marks | {"id": output_ref("create", "id"), "created_at": output_ref("create", "created_at")},
            limit_s=LISTING_LIMIT_S,
        ),
        Step(
            id="settle", kind="call", title="delete duplicates of the job and its files", makes_job=True,
            request={"call": "fine_tuning.jobs.cancel", "duplicates": output_ref("confirm", "duplicates"),
                     "spare": output_ref("confirm", "spare"), "ref": output_ref("confirm", "ref")},
        ),
    ]  # fmt: skip


def body_of(request: PlanRequest, traits: Traits) -> dict[str, Any]:
    """The body of the create request."""
    spec = request.spec
    body: dict[str, Any] = {
        "model": spec.model_for(traits.backend),
        "training_file": output_ref("await_train", "file"),
        "method": method_of(spec, traits.backend),
    }
    if "validation" in request.data.splits:
        body["validation_file"] = output_ref("await_validation", "file")
    given = spec.overrides.get(traits.backend, {})
    optional = {"suffix": traits.suffix, "seed": spec.seed, "integrations": given.get("integrations")}
    return body | {key: value for key, value in optional.items() if value is not None} | dict(traits.extra)


def metadata_of(request: PlanRequest) -> dict[str, str]:
    """Tags, and the marks that identify the job."""
    spec = request.spec
    return dict(spec.tags) | {TOKEN_KEY: request.token, NAME_KEY: spec.name}


def method_of(spec: JobSpec, backend: str) -> dict[str, Any]:
    """The method object: type, given hyperparameters, and the grader of reinforcement."""
    kind = METHODS[spec.method.name]
    given = spec.overrides.get(backend, {})
    requested = {
        "n_epochs": _whole(spec.hyperparameters.epochs),
        "batch_size": spec.hyperparameters.batch_size,
        "beta": spec.method.beta,
        **{name: given.get(name) for name in _TUNING},
        **{name: given[name] for name in ("n_epochs", "batch_size") if given.get(name) is not None},
    }
    config: dict[str, Any] = {}
    if chosen := {name: value for name, value in requested.items() if value is not None}:
        config["hyperparameters"] = chosen
    if given.get("grader") is not None:
        config["grader"] = given["grader"]
    return {"type": kind, kind: config} if config else {"type": kind}


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value


def settings_of(request: PlanRequest, traits: Traits, defaults: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The effective values, and their sources."""
    requested = request.spec.requested_fields()
    name = traits.backend
    given = request.spec.overrides.get(name, {})
    chosen = [Setting(field=field, value=_plain(value), source="spec") for field, value in requested.items()]
    chosen += [Setting(field=f"overrides.{name}.{key}", value=given[key], source="override") for key in given]
    chosen += [
        Setting(field=field, value=value, source=f"default of {traits.backend}")
        for field, value in defaults.items()
        if field not in requested and field.rpartition(".")[2] not in given
    ]
    if traits.suffix is not None and "suffix" not in given:
        chosen.append(Setting(field="suffix", value=traits.suffix, source="derived: the job's name"))
    return tuple(chosen)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value
