"""Export of a tuned model: the adapter unchanged, or merged into the base model's weights."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cloudtune_trainer.adapters import is_whole_model
from cloudtune_trainer.fingerprint import check_base
from cloudtune_trainer.folder import write_json
from cloudtune_trainer.generation_settings import end_where_answers_end
from cloudtune_trainer.pooling_files import copy_pooling
from cloudtune_trainer.tuned import TUNED, check_mergeable, read_tuned


def export(folder: Path | str, to: Path | str, *, merged: bool = False, trust_remote_code: bool = False) -> list[Path]:
    """Write the tuned model of ``folder`` into ``to``, which must not exist yet. Returns the files.

    Merged weights are plain safetensors that any program can load that reads transformers folders. They are added
    in fp32 and stored in the base's own type. Full training has nothing to merge: its weights are copied.
    ``trust_remote_code`` allows the base model's own code to run.
    """
    folder, to = Path(folder), Path(to)
    tuned = read_tuned(folder)
    if to.is_symlink() and not to.exists():
        raise FileExistsError(f"{to} is a link to {to.readlink()}, which does not exist")
    if os.path.lexists(to):
        raise FileExistsError(f"{to} already exists; export to a new folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        if merged and not is_whole_model(tuned["adapter"]) and not tuned["merged"]:
            check_mergeable(tuned["adapter"])
            _merge(folder, tuned, aside, trust_remote_code=trust_remote_code)
        else:
            _copy(folder, aside)
            _bring_base(folder, tuned, aside)
        aside.rename(to)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return sorted(path for path in to.rglob("*") if path.is_file())


def _copy(folder: Path, to: Path) -> None:
    """Copy a folder. Unlike `shutil.copytree`, it stops at the first error and raises it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _bring_base(folder: Path, tuned: dict[str, Any], to: Path) -> None:
    """Copy a base model that was built for the job: it cannot be rebuilt, and is deleted with the job."""
    base = folder / tuned["base_folder"]
    if (
        is_whole_model(tuned["adapter"])
        or tuned["base"]["source"] != "config"
        or not base.is_dir()
        or (to / "base").is_dir()
    ):
        return
    check_base(tuned, base)
    _copy(base, to / "base")
    write_json(to / TUNED, {**tuned, "base_folder": "base"})


def _merge(folder: Path, tuned: dict[str, Any], to: Path, *, trust_remote_code: bool) -> None:
    import torch
    from transformers import AutoConfig

    from cloudtune_trainer.generate import base_of, load_tuned
    from cloudtune_trainer.merging import merge_into
    from cloudtune_trainer.models import BaseModel, found
    from cloudtune_trainer.processors import load_processor, reads_of

    base = base_of(folder, tuned, trust_remote_code=trust_remote_code)
    with found(base):
        stored = AutoConfig.from_pretrained(base.path, **base.loading).dtype or torch.float32
    network = load_tuned(folder, tuned, dtype=torch.float32, trust_remote_code=trust_remote_code, for_merging=True)
    reads = reads_of(tuned["method"])
    tokenizer = load_processor(BaseModel(str(folder)), reads)
    if reads == "text":
        end_where_answers_end(network.get_base_model(), tokenizer)
    merge_into(to, network, stored)
    tokenizer.save_pretrained(to)
    copy_pooling(folder, to)
    write_json(to / TUNED, {**tuned, "merged": True})
