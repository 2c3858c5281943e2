"""Persistence of S3 buckets over restarts: moto's in-memory state is written beside the store after every change.

Each bucket has a folder: ``bucket.json`` names its region and its objects, and their bytes are files beside it.
Unfinished uploads and old versions are not saved.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_NOTE = "bucket.json"
_CHECKSUM = ("checksum_algorithm", "checksum_type", "checksum_value", "checksum_parts")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BLOCK = 1 << 20


def keep(folder: Path, backend: Any, bucket: str) -> None:
    """Write what changed in a bucket."""
    if not _NAME.fullmatch(bucket):
        return
    home = folder / bucket
    held = backend.buckets.get(bucket)
    if held is None:
        if (home / _NOTE).is_file():
            shutil.rmtree(home)
        return
    home.mkdir(parents=True, exist_ok=True)
    keys = {name: held.keys.get(name) for name in list(held.keys.keys())}
    objects = {name: _note(home, key) for name, key in keys.items() if hasattr(key, "contentsize")}
    note = msgspec.json.encode({"region": held.region_name, "objects": objects})
    aside = home / f".{_NOTE}"
    aside.write_bytes(note)
    os.replace(aside, home / _NOTE)
    wanted = {entry["file"] for entry in objects.values()}
    for path in home.iterdir():
        if path.name != _NOTE and path.name not in wanted:
            path.unlink(missing_ok=True)


def _note(home: Path, key: Any) -> dict[str, Any]:
    """The metadata of an object. Writes its bytes if they are not on disk yet."""
    modified = key.last_modified.isoformat()
    mark = f"{key.name}\0{key.etag}\0{modified}"
    name = hashlib.sha256(mark.encode()).hexdigest()
    target = home / name
    if not target.exists():
        aside = home / f".{name}"
        with key.lock, aside.open("wb") as file:
            key._value_buffer.seek(0)
            shutil.copyfileobj(key._value_buffer, file, _BLOCK)
        os.replace(aside, target)
    checksum = {field: getattr(key, field) for field in _CHECKSUM}
    return {"file": name, "modified": modified, "etag": key.etag.strip('"'), "metadata": dict(key.metadata), **checksum}


def restore(folder: Path, backend: Any) -> None:
    """Recreate the saved buckets."""
    for path in sorted(folder.glob(f"*/{_NOTE}")):
        note = msgspec.json.decode(path.read_bytes())
        bucket = path.parent.name
        if bucket not in backend.buckets:
            backend.create_bucket(bucket, note["region"])
        for name, entry in note["objects"].items():
            key = backend.put_object(bucket, name, (path.parent / entry["file"]).read_bytes(), etag=entry["etag"])
            key.set_metadata(entry["metadata"])
            key.last_modified = datetime.fromisoformat(entry["modified"])
            for field in _CHECKSUM:
                setattr(key, field, entry[field])
