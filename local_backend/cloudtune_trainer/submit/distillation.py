"""Settings of distillation for cloudtune's own trainer: the teacher and the temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import Problem, SpecError
from cloudtune.methods import METHODS
from cloudtune_trainer.submit.model_facts import find_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

KEY = "teacher"
_TEMPERATURE = 1.0


def terms(spec: JobSpec, choices: Choices, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part ``teacher`` of the trainer's spec; nothing for other methods."""
    if not METHODS[spec.method.name].teacher or teacher is None:
        return {}
    why = f"default of {choices.backend} for {spec.method.name}"
    choices.note(f"overrides.{choices.backend}.{KEY}", teacher["path"], "override")
    return {
        KEY: {**teacher, "temperature": choices.pick("method.temperature", spec.method.temperature, _TEMPERATURE, why)}
    }


def find_teacher(spec: JobSpec, backend: str) -> dict[str, Any] | None:
    """The teacher's folder and fingerprint, for methods that have one. Raises SpecError."""
    if not METHODS[spec.method.name].teacher:
        return None
    field, name = f"overrides.{backend}.{KEY}", spec.overrides.get(backend, {}).get(KEY)
    if name is None:
        message = f"{spec.method.name} requires the folder of a larger model with the same tokens"
        raise SpecError([Problem(code="no_teacher", field=field, message=message, fix="set it to an absolute path")])
    try:
        facts = msgspec.to_builtins(find_model(name))
    except SpecError as error:
        raise SpecError([msgspec.structs.replace(problem, field=field) for problem in error.problems]) from error
    if facts["source"] != "folder":
        message = f"{name} is not a folder in the transformers layout"
        raise SpecError([Problem(code="no_teacher", field=field, message=message, fix="use the folder of a model")])
    return {"path": facts["path"], "fingerprint": facts["weights"]}


def misused(spec: JobSpec, backend: str) -> Iterator[Problem]:
    """Problems of the settings of distillation: without effect."""
    method = METHODS[spec.method.name]
    if not method.teacher and spec.overrides.get(backend, {}).get(KEY) is not None:
        message = f"{spec.method.name} has no teacher"
        yield Problem(code="no_effect", field=f"overrides.{backend}.{KEY}", message=message, fix="remove it")
    if method.teacher and spec.hyperparameters.packing:
        message = "rows are not packed for distillation: a step is `batch_size` rows"
        yield Problem(code="no_effect", field="hyperparameters.packing", message=message, fix="remove it")
