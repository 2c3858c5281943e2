"""Expands patterns of local paths, in time that does not grow with the number of ways to match."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Matches(NamedTuple):
    """What a pattern matches."""

    files: list[Path]
    """Each once, sorted."""
    unfollowed: list[Path]
    """Links to folders below ``**`` whose files are not among them, sorted."""


def matching_files(pattern: str) -> Matches:
    """The files that the pattern matches.

    The patterns are those of `glob.glob`, which returns a path once for each way to match it. Here every folder is
    visited once for each part of the pattern, and ``**`` does not follow links to folders, which can form loops.
    """
    path = Path(pattern)
    parts = list(path.parts[1:] if path.anchor else path.parts)
    if parts[-1] == "**":
        parts.append("*")
    folders, last = [Path(path.anchor)], parts.pop()
    links: list[Path] = []
    visited: set[str] = set()
    for part in parts:
        found = _below(folders, links) if part == "**" else _named(part, folders)
        by_place = _by_place(one for one in sorted(found) if one.is_dir())
        folders = list(by_place.values())
        visited |= by_place.keys()
    unfollowed = sorted(link for place, link in _by_place(sorted(links)).items() if place not in visited)
    return Matches(sorted(path for path in _named(last, folders) if path.is_file()), unfollowed)


def _named(part: str, folders: list[Path]) -> list[Path]:
    if glob.has_magic(part):
        return [folder / name for folder in folders for name in glob.glob(part, root_dir=folder)]
    return [folder / part for folder in folders]


def _by_place(paths: Iterable[Path]) -> dict[str, Path]:
    """The first path of each place that links can lead to."""
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), path)
    return found


def _below(folders: list[Path], links: list[Path]) -> set[Path]:
    """These folders and all folders below them, except hidden ones. Adds the links to folders to ``links``."""
    found: set[Path] = set()
    for top in sorted(folders):
        if top in found:
            continue
        for folder, names, _ in os.walk(top):
            found.add(Path(folder))
            names[:] = [name for name in names if not name.startswith(".")]
            paths = [Path(folder, name) for name in names]
            links += [path for path in paths if os.path.islink(path)]  # noqa: PTH114 - Path's raises where it may not look
    return found
