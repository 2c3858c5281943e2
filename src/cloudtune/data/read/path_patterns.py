"""Expands patterns of local paths, in time that does not grow with the number of ways to match."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def matching_files(pattern: str) -> list[Path]:
    """The files that the pattern matches, each once, sorted.

    The patterns are those of `glob.glob`, which returns a path once for each way to match it. Here every folder is
    visited once for each part of the pattern, and ``**`` does not follow links to folders, which can form loops.
    """
    path = Path(pattern)
    parts = list(path.parts[1:] if path.anchor else path.parts)
    if parts[-1] == "**":
        parts.append("*")
    folders, last = [Path(path.anchor)], parts.pop()
    for part in parts:
        found = _below(folders) if part == "**" else _named(part, folders)
        folders = list({os.path.realpath(one): one for one in found if one.is_dir()}.values())
    return sorted(path for path in _named(last, folders) if path.is_file())


def _named(part: str, folders: list[Path]) -> list[Path]:
    if glob.has_magic(part):
        return [folder / name for folder in folders for name in glob.glob(part, root_dir=folder)]
    return [folder / part for folder in folders]


def _below(folders: list[Path]) -> set[Path]:
    """These folders and all folders below them, except hidden ones."""
    found: set[Path] = set()
    for top in sorted(folders):
        if top in found:
            continue
        for folder, names, _ in os.walk(top):
            found.add(Path(folder))
            names[:] = [name for name in names if not name.startswith(".")]
    return found
