"""The base model that a spec names: a local folder or file, a prefix in S3, or an id on the hub. Read-only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cloudtune.errors import JobNotFound, Problem, SpecError
from cloudtune.files.model_files import json_object, links_outside, model_sizes
from cloudtune_trainer.submit import model_facts

if TYPE_CHECKING:
    from cloudtune_providers.sagemaker.storage import Stores

CHANNEL = "model"


def find_model(name: str, revision: str | None, stores: Stores) -> dict[str, Any]:
    """The model's properties. ``s3`` is its existing location, ``files`` are the files to upload.

    Raises SpecError for what is no model, and for links that leave the model's folder.
    """
    if name.startswith("s3://"):
        return _in_s3(name, stores)
    found = model_facts.find_model(name, revision=revision)
    facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    facts |= {"s3": None, "files": {}, "channel_path": CHANNEL}
    if found.source == "folder":
        files = sorted(path for path in Path(found.path).rglob("*") if path.is_file() and not _is_hidden(path))
        if problems := list(links_outside(Path(found.path), files)):
            raise SpecError(problems)
        facts["files"] = {path.relative_to(found.path).as_posix(): _file(path) for path in files}
    elif found.source != "hub":
        path = Path(found.path)
        facts["files"] = {path.name: _file(path)}
        facts["channel_path"] = f"{CHANNEL}/{path.name}"
    return facts


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts[-2:])


def _file(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size}


def _in_s3(name: str, stores: Stores) -> dict[str, Any]:
    prefix = name.rstrip("/") + "/"
    store, key = stores.at(prefix)
    entries = {entry["Key"].removeprefix(key): entry for entry in store.list(key)}
    if "config.json" not in entries or not any(file.endswith((".safetensors", ".bin")) for file in entries):
        raise SpecError([Problem(
            code="unknown_model", field="model", message=f"{prefix} has no model (config.json and weights)",
            fix="use the prefix of a model folder in the transformers layout",
        )])  # fmt: skip
    try:
        sizes = model_sizes(json_object(store.read(f"{key}config.json")))
    except (ValueError, JobNotFound) as error:
        message = f"{prefix}config.json is damaged: {error}"
        raise SpecError([Problem(code="unknown_model", field="model", message=message)]) from error
    marks = [[file, entry["Size"], str(entry.get("ETag", ""))] for file, entry in sorted(entries.items())]
    return {
        "source": "folder", "path": prefix, "s3": prefix, "files": {}, "channel_path": CHANNEL, "revision": None,
        "fingerprint": hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32],
        **sizes._asdict(), "parameters": None,
        "chat_template": True if "chat_template.jinja" in entries else None,
    }  # fmt: skip
