"""Looks up what planning needs to know about the base model and the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.plan import Resolved
from cloudtune_providers.run_folders.planning import model_files
from cloudtune_trainer.submit.adapter_facts import find_adapter
from cloudtune_trainer.submit.distillation import find_teacher
from cloudtune_trainer.submit.model_facts import find_model
from cloudtune_trainer.submit.plan import row_limit
from cloudtune_trainer.submit.policy import find_reward

if TYPE_CHECKING:
    from cloudtune.spec import JobSpec
    from cloudtune_providers.run_folders.options import TrainerOverrides


def resolve_model(
    spec: JobSpec, backend: str, scope: str, own: TrainerOverrides, *, code: str, is_remote: bool
) -> Resolved:
    """Find the model, and what else the job reads. With ``is_remote``, a model on this disk is uploaded.

    ``code`` is the hash of the trainer's archive.
    """
    model = find_model(spec.model_for(backend) or "", revision=own.revision)
    facts: dict[str, Any] = {"model": msgspec.to_builtins(model), "code": code}
    if is_remote and model.source != "hub":
        facts["model_files"] = model_files(model.path)
    identity = {"model": model.fingerprint}
    found = {"adapter": find_adapter(spec), "reward": find_reward(spec), "teacher": find_teacher(spec, backend)}
    for name, facts_of_it in found.items():
        if facts_of_it is not None:
            facts[name], identity[name] = facts_of_it, facts_of_it["fingerprint"]
    return Resolved(scope=scope, facts=facts, identity=identity, row_limit=row_limit(spec, facts["model"]))
