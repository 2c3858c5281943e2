"""Reads a trained adapter from which a job continues, without torch. The folder may have been downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudtune.errors import Problem, SpecError
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.fingerprint import fingerprint
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudtune.spec import JobSpec
    from cloudtune_trainer.submit.plan import Choices

_SHOWN = {"r": "rank", "lora_alpha": "alpha", "target_modules": "targets", "num_virtual_tokens": "virtual_tokens"}
"""Fields of ``adapter_config.json`` -> settings of a plan."""


def find_adapter(spec: JobSpec) -> dict[str, Any] | None:
    """The path, fingerprint and configuration of the spec's adapter. Raises SpecError for one that cannot be used."""
    if spec.adapter is None or spec.adapter.path is None:
        return None
    try:
        folder = Path(spec.adapter.path).expanduser().absolute()
        check_adapter(folder)
        config = read_object(folder / ADAPTER_CONFIG)
        files = [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS]
        return {"path": str(folder), "fingerprint": fingerprint(files), "config": config}
    except TrainingProblem as problem:
        raise _refused(problem.message, problem.hint or "") from problem
    except RuntimeError as error:
        fix = "write the path in full"
        raise _refused(f"{spec.adapter.path} names the home folder of an unknown user", fix) from error
    except OSError as error:
        raise _refused(f"cannot read {spec.adapter.path}: {error}", "allow this user to read it") from error


def given_adapter(kind: str, facts: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    """The trainer's ``adapter`` for a job that continues from an adapter. Raises SpecError for one of another type."""
    config = facts["config"]
    entry = ADAPTERS[kind]
    if entry.peft_type != config["peft_type"] or (kind == "dora") is not bool(config.get("use_dora")):
        found = "dora" if config.get("use_dora") else str(config["peft_type"]).lower()
        raise _refused(
            f"{facts['path']} is a {found} adapter, and adapter.type is {kind}", "set the type of the adapter"
        )
    for field, name in _SHOWN.items():
        if config.get(field) is not None and name in entry.settings:
            choices.note(f"adapter.{name}", config[field], "of the adapter")
    return {"type": kind, "path": facts["path"], "fingerprint": facts["fingerprint"]}


def _refused(message: str, fix: str) -> SpecError:
    return SpecError([Problem(code="unknown_adapter", field="adapter.path", message=message, fix=fix)])
