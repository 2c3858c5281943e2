"""Reads the documents in a tuned model's folder. The folder may have been downloaded, so each document is validated.

Standard library only. No document can enable the model's own code: only the caller that loads the model can.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from cloudtune_trainer import folder
from cloudtune_trainer.adapters import ADAPTERS
from cloudtune_trainer.model_folder import check_model_folder
from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from pathlib import Path

TUNED = folder.TUNED
CONFIG = "config.json"
LABEL_PROBLEMS = ("single_label", "multi_label", "regression")
"""What the label of a text can be: see ``tasks.label_problems``."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_LARGEST = 16 << 20
_SIZES = ("r", "size", "num_virtual_tokens", "token_dim", "num_layers", "encoder_hidden_size", "encoder_num_layers")
_LARGEST_SIZE = 1 << 16
_NAMES = (
    "target_modules", "exclude_modules", "feedforward_modules", "target_parameters", "modules_to_save",
    "layers_pattern", "rank_pattern", "alpha_pattern",
)  # fmt: skip
"""Fields with names of modules. peft uses them as regular expressions, which can take forever to match."""
_NAME = re.compile(r"(\^|\.\*\\\.)?([A-Za-z0-9_.-]|\\[.-]){1,300}")
"""A name, or one of the patterns that peft writes itself: ``^model.layers.0`` and ``.*\\.gate_up_proj``."""
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
"""A branch, a tag or a commit. The hub's library uses it as a path below its cache and in URLs."""
_SOURCES = ("folder", "gguf", "hub", "config")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ``model_not_found`` if there is none."""
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
    check_model_folder(folder)
    path = folder / TUNED
    tuned = read_object(path)
    base = tuned.get("base")
    if not isinstance(base, dict) or base.get("source") not in _SOURCES:
        raise _damaged(path, f"base.source is not one of {', '.join(_SOURCES)}")
    revision = base.get("revision")
    texts = {
        "adapter": tuned.get("adapter"), "method": tuned.get("method"), "base_folder": tuned.get("base_folder"),
        "base.path": base.get("path"), "base.revision": "" if revision is None else revision,
        "base.fingerprint": base.get("fingerprint") or "",
    }  # fmt: skip
    for name, value in texts.items():
        if not isinstance(value, str) or "\0" in value:
            raise _damaged(path, f"{name} is not a string")
    if revision is not None and not REVISION.fullmatch(str(revision)):
        raise _damaged(path, "base.revision is not the name of a revision")
    if not isinstance(tuned.get("merged"), bool):
        raise _damaged(path, "merged is not a boolean")
    labels, max_length = tuned.get("labels", []), tuned.get("max_length", 1)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _damaged(path, "labels is not a list of texts")
    if tuned.get("problem") not in (None, *LABEL_PROBLEMS):
        raise _damaged(path, f"problem is not one of {', '.join(LABEL_PROBLEMS)}")
    if not isinstance(max_length, int) or max_length < 1:
        raise _damaged(path, "max_length is not a positive number")
    known = {name: base[name] for name in ("source", "path", "revision", "fingerprint") if name in base}
    return {**tuned, "base": known}


def read_tuned_or_plain(folder: Path) -> dict[str, Any]:
    """As `read_tuned`; for a folder in the transformers layout without ``tuned.json``, a model that generates text."""
    if (folder / TUNED).exists() or not (folder / CONFIG).is_file():
        return read_tuned(folder)
    check_model_folder(folder)
    base = {"source": "folder", "path": str(folder)}
    return {"adapter": "full", "method": "sft", "base": base, "base_folder": ".", "merged": True}


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is not plain weights in a safetensors file. Raises ``model_not_found``."""
    check_model_folder(folder)
    path = folder / ADAPTER_CONFIG
    config = read_object(path)
    known = {kind.peft_type: kind for kind in ADAPTERS.values() if kind.peft_type}
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str) or peft_type not in known:
        raise _damaged(path, f"peft_type is not one of {', '.join(known)}")
    fields, values = known[peft_type].saved, known[peft_type].values
    for name, value in config.items():
        if not value and not isinstance(value, int):
            continue
        if name == "auto_mapping" and _is_mapping_of_transformers(value):
            continue
        kinds = fields.get(name)
        if kinds is None and value is not False:
            raise _damaged(path, f"the field {name[:100]!a} is not allowed")
        if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise _damaged(path, f"{name} has the wrong type")
        if name in values and value not in values[name]:
            raise _damaged(path, f"{name} is not one of {', '.join(values[name])}")
        if kinds is not None and name in _NAMES and not all(map(_is_name, _listed(value))):
            raise _damaged(path, f"{name} contains a pattern or another text that is not the name of a module")
    _check_numbers(path, config)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise _damaged(path, "its weights, adapter_model.safetensors, are missing")


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    sizes = [(name, config[name]) for name in _SIZES if config.get(name)]
    sizes += [("rank_pattern", rank) for rank in (config.get("rank_pattern") or {}).values()]
    for name, size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _LARGEST_SIZE:
            raise _damaged(path, f"{name} is not a possible size")
    for alpha in (config.get("alpha_pattern") or {}).values():
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < float("inf"):
            raise _damaged(path, "alpha_pattern is not a mapping to numbers")


def check_mergeable(adapter: str) -> None:
    """Refuse an adapter that does not change the base model's weights. Raises ``bad_spec``."""
    if adapter not in ADAPTERS or not ADAPTERS[adapter].mergeable:
        raise TrainingProblem(
            "bad_spec", f"a {adapter} adapter cannot be merged into the base model's weights",
            "Export it as it is, or train with adapter: lora.",
        )  # fmt: skip


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _listed(value: Any) -> list[Any]:
    """The names in a field: one name, a list of them, or the keys of a mapping."""
    return [value] if isinstance(value, str) else list(value)


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
