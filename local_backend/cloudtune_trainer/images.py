"""Images of files as a model's pixel values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 64_000_000
"""Larger images are refused: a small file can hold an image that does not fit into memory."""
_CACHE_BYTES = 1 << 30
_THREADS = 4
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class ImageReader:
    """Reads images through the model's image processor. Decoded images stay in memory up to 1 GiB."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._free = _CACHE_BYTES

    def inputs(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """The arguments of the model's forward pass. Several images are decoded at a time."""
        missing = [path for path in dict.fromkeys(paths) if path not in self._cache]
        with ThreadPoolExecutor(_THREADS, "images") as pool:
            values = dict(zip(missing, pool.map(self._pixels, missing), strict=True))
        for path, pixels in values.items():
            if pixels.nbytes <= self._free:
                self._free -= pixels.nbytes
                self._cache[path] = pixels
        rows = [values[path] if path in values else self._cache[path] for path in paths]
        return {"pixel_values": torch.from_numpy(np.stack(rows))}

    def _pixels(self, path: str) -> NDArray[np.float32]:
        (pixels,) = self._processor(images=[decoded(path)], return_tensors="np")["pixel_values"]
        return np.asarray(pixels, dtype=np.float32)


def decoded(path: str) -> Any:
    """The image in 8-bit RGB, upright as its EXIF orientation says. Raises ``bad_data`` if it is damaged."""
    try:
        return _decoded(path)
    except TrainingProblem:
        raise
    except FileNotFoundError as error:
        raise _refused(path, "it does not exist", "Check the path.") from error
    except Exception as error:  # a damaged file can make a decoder fail in any way
        raise _refused(path, str(error), "Use a PNG, JPEG, WebP, BMP or TIFF image that is complete.") from error


def _decoded(path: str) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise _refused(path, f"it has {image.width} x {image.height} pixels", "Reduce it.")
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a JPEG with others behind the first
            raise _refused(path, "it is animated", "Use one of its frames.")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BITS:  # Pillow would cut values above 255
            upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
        return upright.convert("RGB")


def _refused(path: str, reason: str, hint: str) -> TrainingProblem:
    return TrainingProblem("bad_data", f"cannot read the image {path}: {reason}", hint)
