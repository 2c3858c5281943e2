"""A tuned model as files to take away: the adapter as it is, or merged into the base's weights."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cloudtune_trainer.folder import write_json
from cloudtune_trainer.tuned import TUNED, check_mergeable, read_tuned


def export(folder: Path | str, to: Path | str, *, merged: bool = False, trust_remote_code: bool = False) -> list[Path]:
    """Write the tuned model of ``folder`` into ``to``, which must not exist yet. Returns the files.

    Merged weights are plain safetensors that any program which reads transformers folders can load; they are added up
    in fp32 and stored in the base's own type. Full training has nothing to merge: its weights are copied.
    ``trust_remote_code`` lets code that comes with the base model run.
    """
    folder, to = Path(folder), Path(to)
    tuned = read_tuned(folder)
    if to.exists():
        raise FileExistsError(f"{to} already exists; export to a new folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        if merged and tuned["adapter"] != "full" and not tuned["merged"]:
            check_mergeable(tuned["adapter"])
            _merge(folder, tuned, aside, trust_remote_code=trust_remote_code)
        else:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
        aside.rename(to)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return sorted(path for path in to.rglob("*") if path.is_file())


def _merge(folder: Path, tuned: dict[str, object], to: Path, *, trust_remote_code: bool) -> None:
    import torch
    from transformers import AutoConfig

    from cloudtune_trainer.generate import base_of, load_tuned
    from cloudtune_trainer.merging import merge_into
    from cloudtune_trainer.models import BaseModel, found, load_tokenizer

    base = base_of(tuned, trust_remote_code=trust_remote_code)
    with found(base):
        stored = AutoConfig.from_pretrained(base.path, **base.loading).dtype or torch.float32
    network = load_tuned(folder, tuned, dtype=torch.float32, trust_remote_code=trust_remote_code)
    merge_into(to, network, stored)
    load_tokenizer(BaseModel(str(folder))).save_pretrained(to)
    write_json(to / TUNED, {**tuned, "merged": True})
