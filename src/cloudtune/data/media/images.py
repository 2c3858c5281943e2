"""Checks of an image: whether it can be decoded completely, and what training would do to it."""

from __future__ import annotations

import io
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudtune.errors import Problem
from cloudtune.install_command import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudtune.errors import Severity

RULES: dict[str, str] = {
    "not_an_image": "An image is a PNG, JPEG, WebP, BMP or TIFF file.",
    "damaged_image": "An image is complete: every pixel can be decoded.",
    "too_many_pixels": "An image has at most 64 million pixels.",
    "animated_image": "An image has a single frame.",
    "image_mode": "The values of pixels are whole numbers.",
    "wrong_extension": "The extension of an image names its format.",
    "tiny_image": "An image is at least 8 pixels wide and high.",
    "constant_image": "An image has pixels of more than one color.",
}
"""Problem code -> the rule. The last three are warnings."""
_SUFFIXES = {
    "PNG": (".png",), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "BMP": (".bmp", ".dib"),
    "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
}  # fmt: skip
"""The formats that are read, and their extensions."""
_SEVERAL_IMAGES = "MPO"
"""A JPEG file of a phone with further images behind the first one, which is used: previews, depth, the other eye."""
_MOST_PIXELS = 64_000_000
"""Larger ones are refused: a small file can hold an image that does not fit into memory. The trainer has the same."""
_SMALL = 8
_NO_MODES = ("F",)
"""Pixels with fractions, whose range is unknown."""


class Checked(NamedTuple):
    """The problems of a file, and the extension of its format."""

    problems: list[Problem]
    suffix: str = ""


def check(content: bytes, name: str) -> Checked:
    """Decode the image. ``name`` is what messages call it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return Checked([_problem("not_installed", "checking images requires Pillow", install_command("images"))])
    shown = name if len(name) <= 120 else f"{name[:120]}..."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a damaged file holds
            with Image.open(io.BytesIO(content), formats=tuple(_SUFFIXES)) as image:
                suffix = _SUFFIXES[_format_of(image)][0]
                if refused := _refused(image, shown):
                    return Checked([refused])
                image.load()
                return Checked([*_warnings(image, shown, name)], suffix)
    except UnidentifiedImageError:
        fix = f"use one of {', '.join(_SUFFIXES)}, or remove the row"
        return Checked([_problem("not_an_image", f"{shown} is no image that can be read", fix)])
    except Image.DecompressionBombError:
        fix = "reduce the image"
        return Checked([_problem("too_many_pixels", f"{shown} has more than {_MOST_PIXELS:,} pixels", fix)])
    except Exception as error:  # noqa: BLE001 - a damaged file can make a decoder fail in any way
        fix = "save or download the image again, or remove the row"
        return Checked([_problem("damaged_image", f"{shown} cannot be decoded completely: {error}", fix)])


def _format_of(image: Any) -> str:
    return "JPEG" if image.format == _SEVERAL_IMAGES else str(image.format)


def _refused(image: Any, shown: str) -> Problem | None:
    """Why the image is not decoded, if it is not."""
    if image.width * image.height > _MOST_PIXELS:
        size = f"{image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}"
        return _problem("too_many_pixels", f"{shown} has {size}", "reduce the image")
    if getattr(image, "n_frames", 1) > 1 and image.format != _SEVERAL_IMAGES:
        message = f"{shown} is animated, with {image.n_frames} frames"
        return _problem("animated_image", message, "save one of its frames as a PNG")
    if image.mode in _NO_MODES:
        return _problem("image_mode", f"{shown} has pixels with fractions", "save it with 8 or 16 bits for each value")
    return None


def _warnings(image: Any, shown: str, name: str) -> Iterator[Problem]:
    suffix = PurePath(name).suffix.lower()
    if not name.startswith("data:") and suffix not in _SUFFIXES[_format_of(image)]:
        message = f"{shown} is a {_format_of(image)} file"
        yield _problem("wrong_extension", message, f"rename it to {_SUFFIXES[_format_of(image)][0]}", "warning")
    if min(image.size) < _SMALL:
        message = f"{shown} has only {image.width} x {image.height} pixels"
        yield _problem("tiny_image", message, "use a larger image, or remove the row", "warning")
    extrema = image.getextrema()
    bands = [extrema] if isinstance(extrema[0], int | float) else extrema
    if all(low == high for low, high in bands):
        yield _problem("constant_image", f"{shown} has a single color", "remove the row", "warning")


def _problem(code: str, message: str, fix: str, severity: Severity = "error") -> Problem:
    return Problem(code=code, message=message, fix=fix, severity=severity)
