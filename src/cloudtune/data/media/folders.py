"""Folders of media as a source: one folder for each class, whose name is the label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtune.data.problem_list import Faults

_FIELD_OF = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3"), "audio"),
}
"""Extension -> the key of a row that has such a file."""
_SHOWN = 5


def media_field(path: Path) -> str | None:
    """The key of the file in a row, by its extension; None for a file of another kind."""
    return _FIELD_OF.get(path.suffix.lower())


def class_files(folder: Path, faults: Faults) -> list[Path] | None:
    """The media files in the folders of the classes, sorted; None if the folder has no media. Reports other files."""
    found: list[Path] = []
    loose: list[Path] = []
    others: list[Path] = []
    empty: list[str] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        if not place.is_dir():
            (others if media_field(place) is None else loose).append(place)
            continue
        files = sorted(Path(parent, name) for parent, _, names in os.walk(place) for name in names)
        media = [file for file in files if media_field(file) is not None and not file.name.startswith(".")]
        others += [file for file in files if media_field(file) is None and not file.name.startswith(".")]
        found += [file for file in media if file.parent == place]
        loose += [file for file in media if file.parent != place]
        if not media:
            empty.append(place.name)
    if not found and not loose:
        return None
    if loose:
        message = f"{len(loose)} files are not directly in the folder of a class: {_listed(loose, folder)}"
        faults.error("no_class", message, file=str(folder), fix="move each into a folder that is named after its label")
    for name in empty:
        message = f"the folder of the label {name!r} has no images or recordings"
        faults.warn("empty_class", message, file=str(folder), fix="add files, or remove the folder")
    if others:
        message = f"{len(others)} files are neither images nor recordings and are not used: {_listed(others, folder)}"
        faults.warn("not_media", message, file=str(folder), fix="remove them")
    return found


def _listed(files: list[Path], folder: Path) -> str:
    more = ", ..." if len(files) > _SHOWN else ""
    return ", ".join(str(file.relative_to(folder)) for file in files[:_SHOWN]) + more
