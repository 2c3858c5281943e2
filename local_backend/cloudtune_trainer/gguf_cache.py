"""A cache of dequantized GGUF files: folders that load fast, beside the file, named by the hash of its content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from cloudtune_trainer.folder import read_json, write_json
from cloudtune_trainer.model_folder import folder_of_one, publish
from cloudtune_trainer.private_files import private_folder
from cloudtune_trainer.problems import TrainingProblem


def dequantised(path: Path) -> Path:
    """The folder of the dequantized model; created if missing. Safe when two runs start at once."""
    place = _writable_place(path)
    digest = _digest(path, place)
    folder = place / f"{path.stem}.{digest[:12]}.dequantised"
    if (folder / "config.json").is_file():
        return folder
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        private_folder(aside)
        _convert(path, aside)
        publish(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _convert(path: Path, to: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from cloudtune_trainer.weights import cast_parameters, load_checked

    try:
        with folder_of_one(path) as folder:
            source: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **source)
            quantization = GgufConfig(dequantize=True)
            model = load_checked(
                AutoModelForCausalLM, str(folder), **source, dtype=torch.float32, quantization_config=quantization
            )
    except (TrainingProblem, MemoryError, ImportError, OSError):
        raise
    except Exception as error:  # the libraries raise any exception for a damaged file
        raise TrainingProblem(
            "model_not_found",
            f"cannot read {path} as a GGUF model: {error}",
            "Check that the file is complete and that transformers supports its architecture.",
        ) from error
    dtype = torch.bfloat16 if _fits_bfloat16(model) else torch.float32
    cast_parameters(model, dtype)
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def _fits_bfloat16(model: object) -> bool:
    """Whether the weights are exact in bfloat16. Dequantized ones seldom are; rounding is not worth the space."""
    import torch

    parameters = getattr(model, "parameters")()  # noqa: B009 - an nn.Module, without importing torch for its type
    return all(torch.equal(p, p.to(torch.bfloat16).to(p.dtype)) for p in parameters)


def _writable_place(path: Path) -> Path:
    owner = path.parent.stat()
    if os.access(path.parent, os.W_OK) and owner.st_uid == os.geteuid() and not owner.st_mode & 0o022:
        return path.parent  # no other user can put a model there under the expected name
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cloudtune" / "gguf"
    return private_folder(cache)


def _digest(path: Path, place: Path) -> str:
    """SHA-256 of the file, cached by its size and time: hashing gigabytes at every start would be slow."""
    info = path.stat()
    key = [str(path.resolve()), info.st_size, info.st_mtime_ns]
    note = place / f".{path.name}.sha256.json"
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
        known = read_json(note)
        if isinstance(known, dict) and known.get("key") == key:
            return str(known["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(note, {"key": key, "sha256": digest})
    return digest
