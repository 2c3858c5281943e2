"""What a tuned model's folder says of itself. The folder may have been downloaded, so each document is checked first.

Standard library only. No document here can let code run: that is decided by whoever loads the model.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from pathlib import Path

TUNED = "tuned.json"
ADAPTER_CONFIG = "adapter_config.json"
_LARGEST = 16 << 20
_SOURCES = ("folder", "gguf", "hub", "config")
_ADAPTER_FIELDS: dict[str, tuple[type, ...]] = {
    "r": (int,), "lora_alpha": (int, float), "lora_dropout": (int, float), "target_modules": (str, list),
    "task_type": (str,), "peft_type": (str,), "bias": (str,), "fan_in_fan_out": (bool,), "inference_mode": (bool,),
    "use_rslora": (bool,), "use_dora": (bool,), "init_lora_weights": (bool,), "peft_version": (str,),
    "revision": (str,), "base_model_name_or_path": (str,), "modules_to_save": (list,), "rank_pattern": (dict,),
    "alpha_pattern": (dict,), "exclude_modules": (str, list), "layers_to_transform": (int, list),
    "layers_pattern": (str, list), "use_qalora": (bool,), "qalora_group_size": (int,), "lora_bias": (bool,),
    "ensure_weight_tying": (bool,), "megatron_core": (str,),
}  # fmt: skip
"""The fields of a LoRA adapter that say what it is. Others can name modules to import or other models to load, and have
to be empty (``megatron_core`` does nothing without ``megatron_config``)."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ``model_not_found`` where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(min(os.fstat(file.fileno()).st_size, _LARGEST) + 1)
        document = json.loads(content) if len(content) <= _LARGEST else None
    except FileNotFoundError:
        document = None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict):
        raise TrainingProblem(
            "model_not_found",
            f"{path.parent} has no tuned model: {path.name} is missing or is not a JSON object",
            "Use the model folder of a succeeded run.",
        )
    return document


def read_tuned(folder: Path) -> dict[str, Any]:
    """``tuned.json`` of a tuned model's folder. Raises ``model_not_found``."""
    path = folder / TUNED
    tuned = read_object(path)
    base = tuned.get("base")
    if not isinstance(base, dict) or base.get("source") not in _SOURCES:
        raise _damaged(path, f"base.source is not one of {', '.join(_SOURCES)}")
    revision = base.get("revision")
    texts = {
        "adapter": tuned.get("adapter"), "method": tuned.get("method"), "base_folder": tuned.get("base_folder"),
        "base.path": base.get("path"), "base.revision": "" if revision is None else revision,
    }  # fmt: skip
    for name, value in texts.items():
        if not isinstance(value, str) or "\0" in value:
            raise _damaged(path, f"{name} is not a string")
    if not isinstance(tuned.get("merged"), bool):
        raise _damaged(path, "merged is not a boolean")
    known = {name: base[name] for name in ("source", "path", "revision") if name in base}
    return {**tuned, "base": known}


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is anything but plain LoRA weights in a safetensors file. Raises ``model_not_found``."""
    path = folder / ADAPTER_CONFIG
    config = read_object(path)
    if config.get("peft_type") != "LORA":
        raise _damaged(path, "peft_type is not LORA")
    for name, value in config.items():
        if not value and not isinstance(value, int):
            continue
        if name == "auto_mapping" and _is_mapping_of_transformers(value):
            continue
        kinds = _ADAPTER_FIELDS.get(name)
        if kinds is None and value is not False:
            raise _damaged(path, f"the field {name[:100]!a} is not allowed")
        if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise _damaged(path, f"{name} has the wrong type")
    if not 0 < (config.get("r") or 8) <= 1 << 16:
        raise _damaged(path, "r is not a valid rank")
    if not (folder / "adapter_model.safetensors").is_file():
        raise _damaged(path, "its weights, adapter_model.safetensors, are missing")


def _is_mapping_of_transformers(value: Any) -> bool:
    """Whether ``auto_mapping``, which names a module to import, names one of transformers' own, as PEFT writes it."""
    return (
        isinstance(value, dict)
        and value.keys() == {"base_model_class", "parent_library"}
        and all(isinstance(item, str) and re.fullmatch(r"[A-Za-z0-9_.]+", item) for item in value.values())
        and value["parent_library"].startswith("transformers.models.")
    )


def _damaged(path: Path, reason: str) -> TrainingProblem:
    return TrainingProblem("model_not_found", f"cannot use {path}: {reason}", "Download the model again.")
