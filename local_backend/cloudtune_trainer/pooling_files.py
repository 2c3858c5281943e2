"""The files in which sentence-transformers stores how token vectors become the vector of a text.

They let ``SentenceTransformer(folder)`` load a model that was trained here; see
https://sbert.net/docs/sentence_transformer/usage/custom_models.html, read 2026-11-29. Standard library only.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Literal

from cloudtune_trainer.folder import write_json
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.tuned import read_object

if TYPE_CHECKING:
    from pathlib import Path

Pooling = Literal["mean", "cls", "last"]
"""How the vectors of a text's tokens become one vector: their mean, that of the first token, or that of the last."""
MODES: dict[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "last": "pooling_mode_lasttoken",
}
"""Pooling -> the name that all versions of sentence-transformers read."""
_SHORT: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
"""The names that version 6 writes."""
MODULES, POOLING, NORMALIZE = "modules.json", "1_Pooling/config.json", "2_Normalize/config.json"
_FILES = (MODULES, POOLING, NORMALIZE, "sentence_bert_config.json", "config_sentence_transformers.json")
_LIBRARY = "sentence_transformers.models"
_STEPS = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}


def read_pooling(path: Path) -> Pooling:
    """The pooling in ``1_Pooling/config.json``. Raises ``bad_spec`` for one that is not supported."""
    stored = read_object(path)
    chosen = [ours for ours, theirs in MODES.items() if stored.get(theirs) is True]
    others = [name for name, value in stored.items() if name.startswith("pooling_mode_") and value is True]
    if isinstance(stored.get("pooling_mode"), str):
        chosen, others = [_SHORT[name] for name in [stored["pooling_mode"]] if name in _SHORT], [stored["pooling_mode"]]
    if len(chosen) != 1 or len(others) != 1:
        what = f"{path}: the pooling {', '.join(others) or 'of no tokens'} is not supported"
        raise TrainingProblem("bad_spec", what, f"Set method.pooling to {', '.join(MODES)}.")
    return chosen[0]


def check_modules(path: Path) -> None:
    """Raise ``bad_spec`` for a ``modules.json`` that names a module other than those that `write_pooling` writes."""
    try:
        modules = json.loads(path.read_bytes())
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingProblem("bad_spec", f"{path}: it is not a list of modules", "Repair or remove it.") from error
    if others := [kind for kind in kinds if kind not in _STEPS.values()]:
        what = f"{path}: the module {', '.join(others)} is not supported"
        fix = "Use another base model, or train without the module: remove it from a copy of the model."
        raise TrainingProblem("bad_spec", what, fix)


def write_pooling(folder: Path, pooling: str, size: int, max_length: int) -> None:
    """Write the files for a model in ``folder``, whose vectors have ``size`` numbers."""
    for place in _STEPS:
        (folder / place).mkdir(exist_ok=True)
    modes = {theirs: ours == pooling for ours, theirs in MODES.items()}
    write_json(folder / POOLING, {"word_embedding_dimension": size, **modes})
    write_json(folder / NORMALIZE, {})  # a copy would leave an empty folder out
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})
    steps = [
        {"idx": number, "name": str(number), "path": place, "type": f"{_LIBRARY}.{kind}"}
        for number, (place, kind) in enumerate(_STEPS.items())
    ]
    write_json(folder / MODULES, steps)


def copy_pooling(folder: Path, to: Path) -> None:
    """Copy the files of `write_pooling`, if the folder has them."""
    if not (folder / MODULES).is_file():
        return
    for place in _STEPS:
        (to / place).mkdir(exist_ok=True)
    for name in _FILES:
        shutil.copyfile(folder / name, to / name)
