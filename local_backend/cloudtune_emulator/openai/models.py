"""``/v1/models``: base models, tuned ones and their checkpoints; which can be tuned, and how tuned models are named.

Which base takes which method: https://developers.openai.com/api/docs/guides/model-optimization and
https://developers.openai.com/api/docs/deprecations (seen 2026-11-21); Azure's list:
learn.microsoft.com, fine-tune-supported-models (2026-03-05). Shapes: openai 3.52.0, ``types/model.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudtune_emulator.bedrock import mantle
from cloudtune_emulator.engines import Served
from cloudtune_emulator.http import Api, ApiError, Call, Reply
from cloudtune_emulator.openai import jobs
from cloudtune_emulator.openai.compatible import profile_of

if TYPE_CHECKING:
    from cloudtune_emulator.context import EmulatorContext

_BOTH = frozenset({"supervised", "dpo"})
TUNABLE: dict[str, frozenset[str]] = {
    "gpt-4.1-2025-04-14": _BOTH,
    "gpt-4.1-mini-2025-04-14": _BOTH,
    "gpt-4.1-nano-2025-04-14": _BOTH,
    "gpt-4o-2024-08-06": _BOTH,
    "gpt-4o-2024-11-20": _BOTH,
    "gpt-4o-mini-2024-07-18": _BOTH,
    # Closed at OpenAI since 2026-10-23, available on Azure: included, so that reinforcement jobs can be tested.
    "o4-mini-2025-04-16": frozenset({"reinforcement"}),
}


def tunable(context: EmulatorContext, api: Api) -> dict[str, frozenset[str]]:
    """The models that can be tuned there, and with which methods."""
    if (profile := profile_of(context, api)) is not None:
        return profile.tunable()
    return mantle.TUNABLE if api == "mantle" else TUNABLE


_MADE = 1_744_316_542
"""The creation time of the base models."""


def tuned_name(context: EmulatorContext, api: Api, base: str, suffix: str | None, job_id: str) -> str:
    """``ft:base:org:suffix:id``; Azure: ``base.ft-hex-suffix``. Opaque to clients."""
    tail = job_id.removeprefix("ftjob-")
    if api == "azure":
        return f"{base}.ft-{tail:0<32}" + (f"-{suffix}" if suffix else "")
    return f"ft:{base}:{context.settings.organization.removeprefix('org-')}:{suffix or ''}:{tail[:8]}"


def list_(context: EmulatorContext, call: Call) -> Reply:
    """All models."""
    tuned = [_view(context, one.name, one.job) for one in _tuned(context, call) if one.step is None]
    bases = [_view(context, name, None) for name in tunable(context, call.api)]
    return Reply(body={"object": "list", "data": [*bases, *tuned]})


def get(context: EmulatorContext, call: Call) -> Reply:
    """One model."""
    found = find(context, call, call.ids["model"])
    return Reply(body=_view(context, found.name, found.job))


def delete(context: EmulatorContext, call: Call) -> Reply:
    """Delete a tuned model; a base model cannot be deleted. A second deletion is 404."""
    found = find(context, call, call.ids["model"])
    if found.job is None:
        raise ApiError(403, f"You cannot delete {found.name}: it is not yours.", code="model_not_owned")
    if call.api == "azure":
        _refuse_deployed(context, call, found.name)
    context.store.add("gone", call.api, {"id": found.name})
    return Reply(body={"id": found.name, "object": "model", "deleted": True})


def _refuse_deployed(context: EmulatorContext, call: Call, name: str) -> None:
    """Deployments have to be deleted first (learn.microsoft.com, fine-tuning how-to, seen 2026-11-21)."""
    for one in context.store.all("deployment", "azure"):
        if one["model"]["name"] == name and one["deleting"] is None:
            message = f"The model {name} is deployed as {one['id']}. Delete the deployment first."
            raise ApiError(409, message, code="conflict")


def find(context: EmulatorContext, call: Call, name: str) -> Served:
    """The model of that name, or 404."""
    if name in tunable(context, call.api):
        return Served(name=name, base=name)
    for one in _tuned(context, call, name):
        if one.name == name:
            return one
    message = f"The model '{name}' does not exist or you do not have access to it."
    raise ApiError(404, message, code="model_not_found", param="model")


def base_of(context: EmulatorContext, call: Call, name: str) -> str | None:
    """The base that a job on that model trains, or None if the model does not exist."""
    try:
        return find(context, call, name).base
    except ApiError:
        return None


def _tuned(context: EmulatorContext, call: Call, like: str | None = None) -> list[Served]:
    found = []
    for job in context.store.all("job", call.api):
        if like is not None and not like.startswith(job["fine_tuned_model"]):
            continue
        seen = context.status(job, call.now)
        training = context.store.content(job["request"]["training_file"])
        names: dict[str, int | None] = {}
        if seen.word == "succeeded":
            names[job["fine_tuned_model"]] = None
        for kept in seen.checkpoints[-3:]:
            if not kept.is_last or seen.word != "succeeded":
                names.setdefault(jobs.checkpoint_model(job, kept), kept.step)
        found += [
            Served(name=name, base=job["base"], job=job, step=step, training_file=training)
            for name, step in names.items()
            if context.store.get("gone", call.api, name) is None
        ]
    return found


def _view(context: EmulatorContext, name: str, job: dict[str, Any] | None) -> dict[str, Any]:
    made = _MADE if job is None else context.stamp(job["created"])
    owner = "system" if job is None else context.settings.organization
    return {"id": name, "object": "model", "created": made, "owned_by": owner}
