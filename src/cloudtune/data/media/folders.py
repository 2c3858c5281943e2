"""Folders of images as a source: one folder for each class, whose name is the label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtune.data.problem_list import Faults

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_SHOWN = 5


def is_image(path: Path) -> bool:
    """Whether the file is an image, by its extension."""
    return path.suffix.lower() in _IMAGES


def class_files(folder: Path, faults: Faults) -> list[Path] | None:
    """The images in the folders of the classes, sorted; None if the folder has no images. Reports other files."""
    found: list[Path] = []
    loose: list[Path] = []
    others: list[Path] = []
    empty: list[str] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        if not place.is_dir():
            (loose if is_image(place) else others).append(place)
            continue
        files = sorted(Path(parent, name) for parent, _, names in os.walk(place) for name in names)
        files = [file for file in files if not file.name.startswith(".")]
        images = [file for file in files if is_image(file)]
        others += [file for file in files if not is_image(file)]
        found += [file for file in images if file.parent == place]
        loose += [file for file in images if file.parent != place]
        if not images:
            empty.append(place.name)
    if not found and not loose:
        return None
    if loose:
        message = f"{len(loose)} files are not directly in the folder of a class: {_listed(loose, folder)}"
        faults.error("no_class", message, file=str(folder), fix="move each into a folder that is named after its label")
    for name in empty:
        message = f"the folder of the label {name!r} has no images"
        faults.warn("empty_class", message, file=str(folder), fix="add files, or remove the folder")
    if others:
        message = f"{len(others)} files are no images and are not used: {_listed(others, folder)}"
        faults.warn("not_images", message, file=str(folder), fix="remove them")
    return found


def _listed(files: list[Path], folder: Path) -> str:
    more = ", ..." if len(files) > _SHOWN else ""
    return ", ".join(str(file.relative_to(folder)) for file in files[:_SHOWN]) + more
