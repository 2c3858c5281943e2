"""Writes a spec as a YAML file: only what is not a default, in the short forms, with paths relative to its folder."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from cloudtune.document.specfile import SHORT_FOR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloudtune.document.parsed import Path_
    from cloudtune.spec import JobSpec

_WIDTH = 120


def spec_text(spec: JobSpec, folder: Path, comments: Sequence[str] = ()) -> str:
    """The spec as YAML, with comments at its beginning. `load_spec` in that folder reads the same spec."""
    from ruamel.yaml import YAML

    document = spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    document = {
        "version": spec.version,
        "name": spec.name,
        "backend": spec.backend,
        "model": spec.model,
        "method": {"name": spec.method.name} | document.pop("method", {}),
    } | document
    if spec.adapter is not None:
        document["adapter"] = {"type": spec.adapter.type} | document["adapter"]
    yaml, out = YAML(), StringIO()
    yaml.width = _WIDTH
    yaml.dump(_short(_plain(document, f"{folder}/"), ()), out)
    return "".join(f"# {line}\n" for line in comments) + out.getvalue()


def _plain(value: Any, folder: str) -> Any:
    """The value with paths in the folder relative to it, and whole numbers without a point."""
    if isinstance(value, dict):
        return {key: item if key == "tags" else _plain(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, folder) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return f"./{value.removeprefix(folder)}" if isinstance(value, str) and value.startswith(folder) else value


def _short(value: Any, path: Path_) -> Any:
    """The value with the short forms of tables that have only one key."""
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and SHORT_FOR.get(path) in value and path != ("data",):
        return next(iter(value.values()))
    return {key: _short(item, (*path, key)) for key, item in value.items()}
