"""Recordings of files as samples of sound, in one channel and at the rate of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_CACHE_BYTES = 1 << 30
_MOST_SECONDS = 3600
_PART = 1 << 20
"""Samples that are read at once, of all channels together."""


class AudioReader:
    """Reads recordings. They stay in memory up to 1 GiB."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._free = _CACHE_BYTES

    def waves(self, paths: Sequence[str]) -> list[NDArray[np.float32]]:
        """The samples of each recording."""
        return [self._cached(path) for path in paths]

    def _cached(self, path: str) -> NDArray[np.float32]:
        if path in self._cache:
            return self._cache[path]
        wave = decoded(path, self.rate)
        if wave.nbytes <= self._free:
            self._free -= wave.nbytes
            self._cache[path] = wave
        return wave


def decoded(path: str, rate: int) -> NDArray[np.float32]:
    """The mean of the channels, resampled to ``rate``. Raises ``bad_data`` if the file cannot be read."""
    try:
        import soundfile
        import soxr
    except ImportError as error:
        hint = "Install them: pip install soundfile soxr"
        raise TrainingProblem(
            "not_installed", f"reading recordings requires soundfile and soxr: {error}", hint
        ) from error
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames > _MOST_SECONDS * file.samplerate:
                raise TrainingProblem("bad_data", f"{path} is longer than an hour", "Split it.")
            own_rate, size = file.samplerate, max(1, _PART // file.channels)
            parts = []
            while len(part := file.read(size, dtype="float32", always_2d=True)):  # `blocks` does not see an early end
                parts.append(part.mean(axis=1))
    except (soundfile.LibsndfileError, OSError) as error:
        what = f"cannot read the recording {path}: {error}"
        raise TrainingProblem("bad_data", what, "Use a WAV, FLAC, Ogg or MP3 file that is complete.") from error
    mono: Any = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    if not len(mono):
        raise TrainingProblem("bad_data", f"the recording {path} is empty", "Remove the row.")
    if not np.isfinite(mono).all():
        what = f"the recording {path} has samples that are not finite numbers"
        raise TrainingProblem("bad_data", what, "Save or record it again.")
    wave = soxr.resample(mono, own_rate, rate) if own_rate != rate else mono
    return np.ascontiguousarray(wave, dtype=np.float32)
